// Markdown that grows. Finished blocks are rendered once and never parsed again; only the last one is, once a frame.
//
// A block is finished when another one has begun behind it. Three kinds of block can grow long while unfinished: code, whose
// new text is appended as it comes, lists, which are cut between items, and paragraphs, which are cut between sentences. So a
// frame's work does not grow with the answer.

import { CodeView, colourNested } from './code';
import { later } from './later';
import { markdown, type Env, type Token } from './markdown';
import { finish } from './finish';
import { sanitised } from './sanitise';

const AT_ONCE = 8; // blocks; what arrives together beyond them is rendered in pieces
const LONG_PARAGRAPH = 3000;
const LONG_LIST = 2000; // characters of an unfinished list from which on it is cut behind its finished items

interface Part {
  tokens: Token[];
  lines: [number, number];
}

/** A block that is unfinished, of which the first ``length`` characters are. */
interface Cut {
  done: Token[];
  rest: Token[];
  length: number;
}

export class LiveMarkdown {
  private text = '';
  private done = 0; // characters of text whose blocks are finished
  private tail: HTMLElement | null = null;
  private code: CodeView | null = null; // the tail, where it is code that still grows
  private env: Env = {};
  private headings = { last: 2 };
  private linked: { element: HTMLElement; source: string }[] = []; // blocks that may use references defined later
  private nReferences = 0;
  private isEnded = false;
  private isJoined = false; // the tail goes on with a paragraph that was cut

  constructor(private readonly host: HTMLElement) {}

  update(text: string, isEnd: boolean): void {
    if (text === this.text && isEnd === this.isEnded) return;
    if (this.isEnded || !text.startsWith(this.text.slice(0, this.done))) this.reset();
    this.text = text;
    this.isEnded = isEnd;
    this.render();
  }

  private reset(): void {
    this.host.replaceChildren();
    Object.assign(this, { text: '', done: 0, tail: null, code: null, env: {}, linked: [], nReferences: 0, isJoined: false });
    this.headings.last = 2;
  }

  private render(): void {
    const source = this.text.slice(this.done);
    const parts = split(markdown.parse(source, this.env));
    const starts = lineStarts(source);
    const open = this.isEnded ? null : parts.pop();
    parts.forEach((part, index) => {
      const text = slice(source, starts, part.lines);
      if (index < AT_ONCE) this.settle(part.tokens, text);
      else this.settleLater(part.tokens, text);
      this.isJoined = false;
    });
    if (open) {
      const text = source.slice(starts[open.lines[0]]);
      const cut = cutList(open, starts) ?? this.cutParagraph(open, text);
      if (cut) this.settle(cut.done, text.slice(0, cut.length));
      this.done += (starts[open.lines[0]] ?? 0) + (cut?.length ?? 0);
      this.grow(cut ? cut.rest : open.tokens);
    } else {
      this.dropTail();
      this.done = this.isEnded ? this.text.length : this.done;
    }
    this.resolveReferences();
  }

  /** A finished block: rendered for good. */
  private settle(tokens: Token[], source: string): void {
    const [token] = tokens;
    if (this.code && token?.type === 'fence') {
      this.code.end(token.info, token.content);
      this.tail = this.code = null;
      return;
    }
    this.dropTail();
    const block = this.append();
    this.fill(block, tokens);
    this.settled(block, source);
  }

  /** The same in a while: a long answer that is there already does not stop the page. */
  private settleLater(tokens: Token[], source: string): void {
    this.dropTail();
    const block = this.append();
    later(() => {
      this.fill(block, tokens);
      this.settled(block, source);
    });
  }

  private settled(block: HTMLElement, source: string): void {
    finish(block, this.headings);
    colourNested(block);
    if (source.includes('[')) this.linked.push({ element: block, source });
  }

  /** The unfinished block, as it is now. */
  private grow(tokens: Token[]): void {
    const [token] = tokens;
    if (token?.type === 'fence') {
      if (!this.code) {
        this.dropTail();
        this.code = new CodeView((this.tail = this.append()));
      }
      this.code.grow(token.info, token.content);
      return;
    }
    if (this.code) this.dropTail();
    this.tail ??= this.append();
    this.fill(this.tail, tokens);
    finish(this.tail, { ...this.headings });
  }

  /** A long paragraph, cut behind a sentence. Its parts are joined again by their looks. */
  private cutParagraph(part: Part, text: string): Cut | null {
    if (part.tokens[0]?.type !== 'paragraph_open' || text.length < LONG_PARAGRAPH) return null;
    const most = text.length - LONG_PARAGRAPH / 4;
    const ends = [...text.slice(0, most).matchAll(/[.!?,;] (?=\p{L})/gu)];
    const length = (ends.at(-1)?.index ?? text.lastIndexOf(' ', most) - 1) + 2;
    if (length < 2) return null;
    this.isJoined = true;
    const parse = (piece: string) => markdown.parse(piece, this.env);
    return { done: parse(text.slice(0, length)), rest: parse(text.slice(length)), length };
  }

  private append(): HTMLElement {
    const block = document.createElement('div');
    block.className = this.isJoined ? 'block joined' : 'block';
    this.host.append(block);
    return block;
  }

  private dropTail(): void {
    this.tail?.remove();
    this.tail = this.code = null;
  }

  private fill(block: HTMLElement, tokens: Token[]): void {
    const [token] = tokens;
    if (token?.type === 'fence' || token?.type === 'code_block') {
      block.replaceChildren();
      new CodeView(block).end(token.info, token.content);
    } else {
      block.replaceChildren(sanitised(markdown.renderer.render(tokens, markdown.options, this.env)));
    }
  }

  /** Links by reference whose definition came later than the block. */
  private resolveReferences(): void {
    const n = Object.keys(this.env.references ?? {}).length;
    if (n === this.nReferences) return;
    this.nReferences = n;
    for (const { element, source } of this.linked) {
      if (!/\]\s?\[|\[[^\]]+\](?!\()/.test(source)) continue;
      this.fill(element, markdown.parse(source, this.env));
      finish(element, { ...this.headings });
      colourNested(element);
    }
  }
}

/** Top-level blocks: runs of tokens that close at level 0. */
function split(tokens: Token[]): Part[] {
  const parts: Part[] = [];
  let from = 0;
  tokens.forEach((token, index) => {
    if (token.level !== 0 || token.nesting === 1) return;
    const run = tokens.slice(from, index + 1);
    const [first, last] = run[0]!.map ?? [0, 0];
    parts.push({ tokens: run, lines: [first, last] });
    from = index + 1;
  });
  return parts;
}

/** A long list, cut before its last item. Numbered lists go on, because each item carries its number. */
function cutList(part: Part, starts: number[]): Cut | null {
  const [open] = part.tokens;
  const close = part.tokens.at(-1);
  if (!open || !close || !/^(bullet|ordered)_list_open$/.test(open.type)) return null;
  if ((starts[part.lines[1]] ?? Infinity) - (starts[part.lines[0]] ?? 0) < LONG_LIST) return null;
  const last = part.tokens.findLastIndex((token) => token.type === 'list_item_open' && token.level === 1);
  const line = part.tokens[last]?.map?.[0];
  if (last <= 1 || line === undefined || line <= part.lines[0]) return null;
  const again = Object.assign(Object.create(Object.getPrototypeOf(open) as object), open) as Token;
  again.attrs = open.type === 'ordered_list_open' ? [['start', part.tokens[last]!.info || '1']] : null;
  return {
    done: [...part.tokens.slice(0, last), close],
    rest: [again, ...part.tokens.slice(last)],
    length: starts[line]! - starts[part.lines[0]]!,
  };
}

/** Where each line begins, and one more for the end. */
function lineStarts(source: string): number[] {
  const starts = [0];
  for (let at = source.indexOf('\n'); at >= 0; at = source.indexOf('\n', at + 1)) starts.push(at + 1);
  if (starts.at(-1) !== source.length) starts.push(source.length);
  return starts;
}

function slice(source: string, starts: number[], [first, last]: [number, number]): string {
  return source.slice(starts[first] ?? 0, starts[last] ?? source.length);
}
