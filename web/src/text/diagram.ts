// Mermaid, fetched when the first diagram is complete. It runs in a frame of its own, because it needs inline styles, which
// this page's policy forbids; what comes back is shown as a picture, in which nothing can run and nothing can be fetched.

import { t } from '../i18n/index.svelte';

interface Drawn {
  id: number;
  svg?: string;
}

let frame: Promise<HTMLIFrameElement> | null = null;
let lastId = 0;
const asked = new Map<number, (svg: string | undefined) => void>();

function open(): Promise<HTMLIFrameElement> {
  frame ??= new Promise((resolve) => {
    const made = document.createElement('iframe');
    made.className = 'diagram-frame';
    made.title = t('diagram');
    made.tabIndex = -1;
    made.setAttribute('aria-hidden', 'true');
    window.addEventListener('message', ({ source, data }: MessageEvent<Drawn | 'ready'>) => {
      if (source !== made.contentWindow) return;
      if (data === 'ready') return resolve(made);
      asked.get(data.id)?.(data.svg);
      asked.delete(data.id);
    });
    made.src = '/diagram.html';
    document.body.append(made);
  });
  return frame;
}

async function draw(text: string): Promise<string | undefined> {
  const made = await open();
  const id = ++lastId;
  const isDark = document.documentElement.dataset.theme === 'dark';
  return new Promise((resolve) => {
    asked.set(id, resolve);
    made.contentWindow?.postMessage({ id, text, isDark }, location.origin);
  });
}

/** Show the diagram above its text, with a button that shows the text instead. */
export function drawDiagram(block: HTMLElement, bar: HTMLElement, text: string): void {
  void draw(text).then((svg) => {
    if (!svg) return; // not a diagram that Mermaid can read: the text stays
    const picture = new Image();
    picture.className = 'diagram';
    picture.alt = t('diagram.alt', { text: text.trim().slice(0, 300) });
    const width = /viewBox="[\d.eE+-]+ [\d.eE+-]+ ([\d.]+)/.exec(svg)?.[1];
    if (width) picture.width = Math.ceil(Number(width));
    picture.src = URL.createObjectURL(new Blob([svg], { type: 'image/svg+xml' }));
    picture.onload = () => URL.revokeObjectURL(picture.src);
    const button = document.createElement('button');
    button.type = 'button';
    const show = (isText: boolean) => {
      block.classList.toggle('is-drawn', !isText);
      button.textContent = isText ? t('diagram.show') : t('diagram.text');
    };
    button.addEventListener('click', () => show(block.classList.contains('is-drawn')));
    bar.insertBefore(button, bar.lastChild);
    block.append(picture);
    show(false);
  });
}
