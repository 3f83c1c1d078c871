// A snippet cut at the places that were found; offsets as in JavaScript.

export interface Part {
  text: string;
  isHit: boolean;
}

export function marked(snippet: string, offsets: [number, number][]): Part[] {
  const parts: Part[] = [];
  let at = 0;
  for (const [start, end] of offsets) {
    if (start < at || end > snippet.length) continue;
    parts.push({ text: snippet.slice(at, start), isHit: false }, { text: snippet.slice(start, end), isHit: true });
    at = end;
  }
  parts.push({ text: snippet.slice(at), isHit: false });
  return parts.filter((part) => part.text);
}
