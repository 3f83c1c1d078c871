// Markdown to tokens: markdown-it without raw HTML or images, with formulas, and with links that show where they lead.

import MarkdownIt, { type Env, type Token } from 'markdown-it';
import { formulas } from './formulas';

export type { Env, Token };

export const markdown = new MarkdownIt({ html: false, linkify: true, breaks: false, typographer: false });
markdown.use(formulas);
markdown.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
markdown.validateLink = (url) => /^(https?:|mailto:)/i.test(url.trim());

const rules = markdown.renderer.rules;

// A picture elsewhere would tell its server that, when and what somebody reads: its text stands there as a link instead.
rules.image = (tokens, index) => {
  const token = tokens[index]!;
  const source = String(token.attrGet('src') ?? '');
  const escape = markdown.utils.escapeHtml;
  return `<a class="picture" href="${escape(source)}">${escape(token.content || source)}</a>`;
};

// A style attribute would need a weaker policy; classes do the same.
for (const name of ['th_open', 'td_open']) {
  rules[name] = (tokens, index, options, _env, self) => {
    const token = tokens[index]!;
    const style = String(token.attrGet('style') ?? '');
    const align = /text-align:(left|right|center)/.exec(style)?.[1];
    if (token.attrs) token.attrs = token.attrs.filter(([attribute]) => attribute !== 'style');
    if (align) token.attrJoin('class', `align-${align}`);
    return self.renderToken(tokens, index, options);
  };
}

// A wide table scrolls by itself.
rules.table_open = () => '<div class="table" tabindex="0"><table>\n';
rules.table_close = () => '</table></div>\n';
