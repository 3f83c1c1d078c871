// Formulas in Markdown: $x$, $$x$$, \(x\) and \[x\] become elements whose text is the TeX; math.ts draws them.
//
// A dollar opens only before a non-space and closes only behind one and before no digit, so that prices stay prices
// (pandoc's rule, tex_math_dollars).

import type { MarkdownIt, StateBlock, StateInline } from 'markdown-it';


const INLINE = [
  { open: '$$', close: '$$', display: true },
  { open: '\\[', close: '\\]', display: true },
  { open: '\\(', close: '\\)', display: false },
  { open: '$', close: '$', display: false },
];
const BLOCK = [
  { open: '$$', close: '$$' },
  { open: '\\[', close: '\\]' },
];
const LONGEST = 10_000; // characters of one formula

function inlineFormula(state: StateInline, silent: boolean): boolean {
  for (const { open, close, display } of INLINE) {
    if (!state.src.startsWith(open, state.pos)) continue;
    const start = state.pos + open.length;
    const end = closing(state.src, start, state.posMax, close);
    if (end < 0 || end - start > LONGEST || !state.src.slice(start, end).trim()) return false;
    if (open === '$' && !isDollarFormula(state.src, start, end)) return false;
    if (!silent) {
      const token = state.push(display ? 'formula_display' : 'formula', 'span', 0);
      token.content = state.src.slice(start, end).trim();
    }
    state.pos = end + close.length;
    return true;
  }
  return false;
}

function closing(text: string, from: number, to: number, close: string): number {
  for (let at = text.indexOf(close, from); at >= 0 && at <= to - close.length; at = text.indexOf(close, at + 1)) {
    let slashes = 0;
    while (text[at - 1 - slashes] === '\\') slashes += 1;
    if (close[0] === '\\' || slashes % 2 === 0) return at;
  }
  return -1;
}

function isDollarFormula(text: string, start: number, end: number): boolean {
  return !/\s/.test(text[start] ?? ' ') && !/\s/.test(text[end - 1] ?? ' ') && !/\d/.test(text[end + 1] ?? '');
}

function blockFormula(state: StateBlock, startLine: number, endLine: number, silent: boolean): boolean {
  const line = (n: number) => state.src.slice(state.bMarks[n]! + state.tShift[n]!, state.eMarks[n]);
  const kind = BLOCK.find(({ open }) => line(startLine).startsWith(open));
  if (!kind || state.sCount[startLine]! - state.blkIndent >= 4) return false;
  const first = line(startLine).slice(kind.open.length);
  const lines: string[] = [];
  let next = startLine;
  if (first.trimEnd().endsWith(kind.close)) {
    lines.push(first.trimEnd().slice(0, -kind.close.length));
  } else {
    if (first.includes(kind.close)) return false; // text goes on behind it: an inline formula
    lines.push(first);
    for (next = startLine + 1; ; next += 1) {
      if (next >= endLine || state.sCount[next]! < state.blkIndent) return false; // never closed: ordinary text
      const text = line(next).trimEnd();
      if (text.endsWith(kind.close)) {
        lines.push(text.slice(0, -kind.close.length));
        break;
      }
      lines.push(text);
    }
  }
  const content = lines.join('\n').trim();
  if (!content || content.length > LONGEST) return false;
  if (silent) return true;
  const token = state.push('formula_block', 'div', 0);
  token.block = true;
  token.content = content;
  token.map = [startLine, next + 1];
  state.line = next + 1;
  return true;
}

export function formulas(md: MarkdownIt): void {
  md.inline.ruler.before('escape', 'formula', inlineFormula);
  md.block.ruler.before('fence', 'formula_block', blockFormula, { alt: ['paragraph', 'blockquote', 'list'] });
  const escape = md.utils.escapeHtml;
  md.renderer.rules.formula = (tokens, index) => `<span class="tex">${escape(tokens[index]!.content)}</span>`;
  md.renderer.rules.formula_display = (tokens, index) =>
    `<span class="tex display">${escape(tokens[index]!.content)}</span>`;
  md.renderer.rules.formula_block = (tokens, index) =>
    `<div class="tex display">${escape(tokens[index]!.content)}</div>\n`;
}
