// Runs in diagram.html: text of a diagram in, SVG out. The page shows it as a picture.

import mermaid from 'mermaid';

interface Asked {
  id: number;
  text: string;
  isDark: boolean;
}

const LONGEST = 20_000; // characters
const FETCHES = /\bimg\s*:|url\s*\(/i; // the policy would refuse it; a diagram that wants it stays text

async function draw({ id, text, isDark }: Asked): Promise<string | undefined> {
  if (FETCHES.test(text)) return undefined;
  mermaid.initialize({
    startOnLoad: false,
    securityLevel: 'strict',
    theme: isDark ? 'dark' : 'neutral',
    htmlLabels: false,
    flowchart: { htmlLabels: false },
    fontFamily: 'system-ui, sans-serif',
    maxTextSize: LONGEST,
    suppressErrorRendering: true,
  });
  const { svg } = await mermaid.render(`diagram-${id}`, text);
  return new XMLSerializer().serializeToString(new DOMParser().parseFromString(svg, 'text/html').querySelector('svg')!);
}

let last = Promise.resolve();

addEventListener('message', ({ source, origin, data }: MessageEvent<Asked>) => {
  if (source !== parent || origin !== location.origin) return;
  last = last.then(async () => {
    const svg = await draw(data).catch(() => undefined);
    parent.postMessage({ id: data.id, svg }, location.origin);
  });
});

parent.postMessage('ready', location.origin);
