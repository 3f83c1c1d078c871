// The last step before anything that a model, a file or an import wrote becomes part of the page.

import DOMPurify from 'dompurify';

const TAGS = [
  'a', 'blockquote', 'br', 'code', 'del', 'div', 'em', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'hr', 'li', 'ol', 'p', 'pre', 's',
  'span', 'strong', 'sub', 'sup', 'table', 'tbody', 'td', 'th', 'thead', 'tr', 'ul',
];
const ATTRIBUTES = ['class', 'href', 'start', 'tabindex'];
const CLASSES = /^(tex|display|picture|table|align-(left|right|center)|language-[^\s]{1,40})$/;

/** What is left of HTML when everything but our own tags, attributes and classes is gone. */
export function sanitised(html: string): DocumentFragment {
  const clean = DOMPurify.sanitize(html, {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
    RETURN_DOM_FRAGMENT: true,
  });
  for (const element of clean.querySelectorAll('[class]')) {
    for (const name of [...element.classList]) if (!CLASSES.test(name)) element.classList.remove(name);
  }
  return clean;
}

/** A formula that KaTeX has drawn: also its own tags and the sizes it sets. */
export function sanitiseFormula(element: HTMLElement): void {
  DOMPurify.sanitize(element, {
    IN_PLACE: true,
    USE_PROFILES: { html: true, mathMl: true, svg: true },
    ADD_TAGS: ['semantics', 'annotation'],
    ADD_ATTR: ['encoding'],
    FORBID_TAGS: ['a', 'img', 'image', 'style', 'form', 'input', 'button', 'use', 'foreignObject'],
    FORBID_ATTR: ['href', 'xlink:href', 'src', 'id', 'name'],
  });
}
