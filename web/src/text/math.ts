// Draws formulas with KaTeX, which is fetched when the first formula is seen. What it cannot read stays as it was written.

import { later } from './later';
import { sanitiseFormula } from './sanitise';

type Katex = typeof import('katex').default;

const KEPT = 300; // drawn formulas that are remembered: the block that grows shows its own again and again
const known = new Map<string, HTMLElement>();
let loading: Promise<Katex> | null = null;

function load(): Promise<Katex> {
  loading ??= Promise.all([import('katex'), import('katex/dist/katex.min.css')]).then(([module]) => module.default);
  return loading;
}

export function drawFormulas(root: ParentNode): void {
  for (const element of root.querySelectorAll<HTMLElement>('.tex')) {
    const drawn = known.get(keyOf(element));
    if (drawn) show(element, drawn);
    else void load().then((katex) => later(() => draw(katex, element)), () => undefined); // offline: the TeX stays
  }
}

const isDisplay = (element: HTMLElement) => element.classList.contains('display');
const keyOf = (element: HTMLElement) => `${isDisplay(element)}${element.textContent}`;

function draw(katex: Katex, element: HTMLElement): void {
  if (!element.isConnected) return; // its block has grown meanwhile
  const key = keyOf(element);
  const drawn = document.createElement('span');
  try {
    katex.render(element.textContent ?? '', drawn, {
      displayMode: isDisplay(element),
      throwOnError: true,
      trust: false,
      strict: 'ignore',
      maxSize: 20,
      maxExpand: 300,
    });
  } catch {
    element.classList.add('unread');
    return;
  }
  sanitiseFormula(drawn);
  known.set(key, drawn);
  if (known.size > KEPT) known.delete(known.keys().next().value!);
  show(element, drawn);
}

function show(element: HTMLElement, drawn: HTMLElement): void {
  element.replaceChildren(drawn.cloneNode(true));
  element.classList.add('drawn');
  element.setAttribute('dir', 'ltr');
}
