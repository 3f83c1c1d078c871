// Draws formulas with KaTeX, which is fetched when the first formula is seen. What it cannot read stays as it was written.

import { later } from './later';
import { sanitiseFormula } from './sanitise';

type Katex = typeof import('katex').default;
let loading: Promise<Katex> | null = null;

function load(): Promise<Katex> {
  loading ??= Promise.all([import('katex'), import('katex/dist/katex.min.css')]).then(([module]) => module.default);
  return loading;
}

export function drawFormulas(root: ParentNode): void {
  const found = [...root.querySelectorAll<HTMLElement>('.tex')];
  if (!found.length) return;
  load().then(
    (katex) => {
      for (const element of found) later(() => draw(katex, element));
    },
    () => undefined, // offline: the TeX stays
  );
}

function draw(katex: Katex, element: HTMLElement): void {
  const tex = element.textContent ?? '';
  const drawn = document.createElement('span');
  try {
    katex.render(tex, drawn, {
      displayMode: element.classList.contains('display'),
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
  element.replaceChildren(drawn);
  element.classList.add('drawn');
  element.setAttribute('dir', 'ltr');
}
