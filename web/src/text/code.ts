// A block of code: its language, a button that copies it, colours while it grows. A diagram where it is Mermaid.

import { copyText } from '../parts/clipboard';
import { t } from '../i18n/index.svelte';
import { drawDiagram } from './diagram';
import { later } from './later';

const LONGEST = 200_000; // characters: more stays uncoloured
const LONGEST_GROWING = 20_000; // more gets its colours when it is complete
const REST_MS = 300; // between two colourings, and ten times as long as one took
const PIECE_LINES = 40; // lines that are laid out together: what a new line costs does not grow with the code

export class CodeView {
  private readonly code = document.createElement('code');
  private readonly name = document.createElement('span');
  private readonly bar = document.createElement('div');
  private text = '';
  private nLines = 0; // in the last piece
  private nColoured = 0; // pieces that will not look different
  private isColouring = false;
  private isWhole = false;

  constructor(private readonly block: HTMLElement) {
    const pre = document.createElement('pre');
    pre.tabIndex = 0; // wide code is scrolled with the keyboard, too
    pre.dir = 'ltr';
    pre.append(this.code);
    this.bar.className = 'code-bar';
    this.bar.append(this.name, this.copyButton());
    block.classList.add('code');
    block.append(this.bar, pre);
  }

  /** Show the text so far: what is new is appended. */
  grow(info: string, text: string): void {
    this.name.textContent = languageOf(info);
    while (!text.startsWith(this.text)) this.dropPiece(); // what closes the block looked like a part of it
    if (text.length > this.text.length) for (const line of text.slice(this.text.length).split(/(?<=\n)/)) this.append(line);
    this.text = text;
    void this.colourSoFar(languageOf(info));
  }

  private dropPiece(): void {
    const last = this.code.lastElementChild;
    this.text = this.text.slice(0, -(last?.textContent ?? this.text).length);
    last?.remove();
    this.nLines = PIECE_LINES; // those before it are full
    this.nColoured = Math.min(this.nColoured, this.code.childElementCount);
  }

  private async colourSoFar(language: string): Promise<void> {
    if (this.isWhole || this.isColouring || language === 'mermaid' || this.text.length > LONGEST_GROWING) return;
    this.isColouring = true;
    const { text } = this;
    const start = performance.now();
    this.nColoured = await colour(this.code, language, text, this.nColoured);
    setTimeout(() => {
      this.isColouring = false;
      if (this.text !== text) void this.colourSoFar(language);
    }, Math.max(REST_MS, 10 * (performance.now() - start)));
  }

  private append(line: string): void {
    let last = this.code.lastElementChild;
    if (!last || this.nLines >= PIECE_LINES) {
      last = document.createElement('span');
      this.code.append(last);
      this.nLines = 0;
    }
    last.append(line);
    if (line.endsWith('\n')) this.nLines += 1;
  }

  /** Show the complete text, coloured. */
  end(info: string, text: string): void {
    this.isWhole = true;
    this.grow(info, text);
    const language = languageOf(info);
    if (language === 'mermaid') drawDiagram(this.block, this.bar, text);
    else if (text.length <= LONGEST) void colour(this.code, language, text);
  }

  private copyButton(): HTMLButtonElement {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = t('copy');
    button.addEventListener('click', () => {
      void copyText(this.text).then((isDone) => {
        button.textContent = isDone ? t('copied') : t('copy.failed');
        setTimeout(() => (button.textContent = t('copy')), 1600);
      });
    });
    return button;
  }
}

/** Code inside lists and quotes, once its block is finished. */
export function colourNested(block: HTMLElement): void {
  for (const code of block.querySelectorAll('pre > code')) {
    const pre = code.parentElement!;
    if (pre.parentElement?.classList.contains('code')) continue;
    const language = [...code.classList].find((name) => name.startsWith('language-'))?.slice(9) ?? '';
    const wrapper = document.createElement('div');
    new CodeView(wrapper).end(language, code.textContent ?? '');
    pre.replaceWith(wrapper);
  }
}

export function languageOf(info: string): string {
  return /^[\w+#.-]{1,30}/.exec(info.trim())?.[0].toLowerCase() ?? '';
}

type Span = [kind: string, text: string];
let worker: Worker | null = null;
const asked = new Map<number, (spans: Span[]) => unknown>();

/** Have the worker colour what comes after ``nDone`` pieces; gives how many are coloured then.

It runs highlight.js beside the page, so long code stops nothing. */
async function colour(element: HTMLElement, language: string, text: string, nDone = 0): Promise<number> {
  if (!language || !text.trim()) return nDone;
  if (!worker) {
    const { default: url } = await import('./highlight.worker.ts?worker&url');
    worker ??= start(url);
  }
  const id = asked.size ? Math.max(...asked.keys()) + 1 : 1;
  const spans = new Promise<Span[]>((resolve) => asked.set(id, resolve));
  worker.postMessage({ id, language, text });
  return paint(element, await spans, nDone);
}

function start(url: string): Worker {
  const made = new Worker(trustedUrl(url) as string, { type: 'module' });
  made.onmessage = ({ data }: MessageEvent<{ id: number; spans: Span[] }>) => {
    asked.get(data.id)?.(data.spans);
    asked.delete(data.id);
  };
  return made;
}

interface Policies {
  createPolicy(name: string, rules: { createScriptURL: (url: string) => string }): { createScriptURL(url: string): unknown };
}
let policy: { createScriptURL(url: string): unknown } | undefined;

/** The address of one of our own scripts, marked as such where the browser enforces Trusted Types. */
export function trustedUrl(url: string): unknown {
  const types = (window as { trustedTypes?: Policies }).trustedTypes;
  policy ??= types?.createPolicy('tenth', {
    createScriptURL: (text) => {
      if (new URL(text, location.href).origin !== location.origin) throw new TypeError('not our own script');
      return text;
    },
  });
  return policy ? policy.createScriptURL(url) : url;
}

/** Colour one piece after the other, as far as the spans go; gives how many pieces they fill. */
function paint(code: HTMLElement, spans: Span[], nDone: number): number {
  let next = 0;
  let used = 0; // characters of the next span that are shown already
  let nFilled = 0;
  for (const [index, piece] of [...code.children].entries()) {
    const painted: Span[] = [];
    let left = (piece.textContent ?? '').length;
    while (left > 0 && next < spans.length) {
      const [kind, text] = spans[next]!;
      const part = text.slice(used, used + left);
      painted.push([kind, part]);
      left -= part.length;
      used += part.length;
      if (used >= text.length) [next, used] = [next + 1, 0];
    }
    if (next < spans.length) nFilled += 1;
    if (index >= nDone && painted.length) later(() => repaint(piece, painted));
  }
  return Math.max(nDone, nFilled);
}

/** What came meanwhile stays, without colours. */
function repaint(piece: Element, painted: Span[]): void {
  const before = painted.map(([, text]) => text).join('');
  const text = piece.textContent ?? '';
  if (text.startsWith(before)) piece.replaceChildren(...painted.map(elementOf), text.slice(before.length));
}

function elementOf([kind, text]: Span): Node | string {
  if (!kind) return text;
  const span = document.createElement('span');
  span.className = kind;
  span.textContent = text;
  return span;
}
