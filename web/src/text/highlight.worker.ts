// highlight.js, beside the page. Gives spans (class, text), never HTML: the page makes elements of them.

import highlight from 'highlight.js/lib/common';

type Span = [kind: string, text: string];
interface Node {
  scope?: string;
  children: (Node | string)[];
}

function spansOf(node: Node, kind: string, into: Span[]): Span[] {
  for (const child of node.children) {
    if (typeof child === 'string') {
      const last = into.at(-1);
      if (last && last[0] === kind) last[1] += child;
      else into.push([kind, child]);
    } else {
      spansOf(child, child.scope ? classOf(child.scope) : kind, into);
    }
  }
  return into;
}

function classOf(scope: string): string {
  return `hl-${scope.split('.')[0]!.replace(/[^a-z_-]/gi, '')}`;
}

self.onmessage = ({ data }: MessageEvent<{ id: number; language: string; text: string }>) => {
  let spans: Span[] = [];
  if (highlight.getLanguage(data.language)) {
    const result = highlight.highlight(data.text, { language: data.language, ignoreIllegals: true });
    spans = spansOf((result._emitter as unknown as { rootNode: Node }).rootNode, '', []);
  }
  self.postMessage({ id: data.id, spans });
};
