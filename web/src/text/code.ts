// A block of code: its language, a button that copies it, colours when it is complete. A diagram where it is Mermaid.

import { copyText } from '../parts/clipboard';
import { t } from '../i18n/index.svelte';
import { drawDiagram } from './diagram';
import { later } from './later';

const LONGEST = 200_000; // characters: more stays uncoloured

export class CodeView {
  private readonly code = document.createElement('code');
  private readonly name = document.createElement('span');
  private readonly bar = document.createElement('div');
  private text = '';

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
    if (text.startsWith(this.text)) this.code.append(text.slice(this.text.length));
    else this.code.textContent = text;
    this.text = text;
  }

  /** Show the complete text, coloured. */
  end(info: string, text: string): void {
    this.grow(info, text);
    this.code.textContent = text;
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
const asked = new Map<number, (spans: Span[]) => void>();

/** Ask the worker for the colours; it runs highlight.js beside the page, so long code stops nothing. */
async function colour(element: HTMLElement, language: string, text: string): Promise<void> {
  if (!language || !text.trim()) return;
  if (!worker) {
    const { default: url } = await import('./highlight.worker.ts?worker&url');
    worker ??= start(url);
  }
  const id = asked.size ? Math.max(...asked.keys()) + 1 : 1;
  asked.set(id, (spans) => paint(element, spans));
  worker.postMessage({ id, language, text });
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

const PIECE = 400; // spans put into the page at once

function paint(element: HTMLElement, spans: Span[]): void {
  if (!spans.length) return;
  const painted = document.createDocumentFragment();
  for (let from = 0; from < spans.length; from += PIECE) {
    later(() => {
      for (const [kind, text] of spans.slice(from, from + PIECE)) {
        if (!kind) {
          painted.append(text);
          continue;
        }
        const span = document.createElement('span');
        span.className = kind;
        span.textContent = text;
        painted.append(span);
      }
      if (from + PIECE >= spans.length) element.replaceChildren(painted);
    });
  }
}
