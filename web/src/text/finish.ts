// What rendered Markdown still needs to be part of a page: safe links that show their target, heading levels, formulas.

import { drawFormulas } from './math';

export function finish(block: HTMLElement, headings: { last: number }): void {
  for (const link of block.querySelectorAll('a')) showTarget(link);
  for (const heading of block.querySelectorAll('h1, h2, h3, h4, h5, h6')) lower(heading, headings);
  for (const item of block.querySelectorAll('li')) tick(item);
  block.querySelectorAll('p, li, td, th, h3, h4, h5, h6').forEach((element) => element.setAttribute('dir', 'auto'));
  drawFormulas(block);
}

function showTarget(link: HTMLAnchorElement): void {
  const { href } = link;
  link.target = '_blank';
  link.rel = 'noopener noreferrer nofollow';
  link.referrerPolicy = 'no-referrer';
  link.title = href;
  const place = link.protocol === 'mailto:' ? link.pathname : link.host;
  if (!(link.textContent ?? '').includes(place)) {
    const target = document.createElement('span');
    target.className = 'target';
    target.textContent = ` (${place})`;
    link.append(target);
  }
}

/** An answer's headings stand below the message's own (level 2) and skip no level. */
function lower(heading: Element, headings: { last: number }): void {
  const level = Math.min(Number(heading.tagName[1]) + 2, headings.last + 1, 6);
  headings.last = level;
  const lowered = document.createElement(`h${level}`);
  lowered.append(...heading.childNodes);
  heading.replaceWith(lowered);
}

/** [ ] and [x] at the start of an item. */
function tick(item: Element): void {
  const first = item.firstChild?.nodeName === 'P' ? item.firstChild.firstChild : item.firstChild;
  if (first?.nodeType !== Node.TEXT_NODE) return;
  const mark = /^\s*\[([ xX])\] /.exec(first.nodeValue ?? '');
  if (!mark) return;
  first.nodeValue = (mark[1] === ' ' ? '☐ ' : '☑ ') + first.nodeValue!.slice(mark[0].length);
  item.classList.add('task');
}
