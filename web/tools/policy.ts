// The Content-Security-Policy of each document, in one place; the build writes it beside the page, the server sends it.

const PAGE = {
  'default-src': "'none'",
  'script-src': "'self'",
  'style-src': "'self'", // no inline style anywhere: KaTeX and Svelte set styles through the DOM, diagrams have their own frame
  'img-src': "'self' blob: data:",
  'font-src': "'self'",
  'connect-src': "'self'",
  'manifest-src': "'self'",
  'worker-src': "'self'",
  'frame-src': "'self'",
  'base-uri': "'none'",
  'form-action': "'none'",
  'frame-ancestors': "'none'",
  'require-trusted-types-for': "'script'",
  'trusted-types': 'svelte-trusted-html dompurify tenth',
};

// Mermaid sets inline styles and HTML. It can run nothing but our own script, fetch nothing, and send nothing.
const DIAGRAM = {
  'default-src': "'none'",
  'script-src': "'self'",
  'style-src': "'self' 'unsafe-inline'",
  'base-uri': "'none'",
  'form-action': "'none'",
  'frame-ancestors': "'self'",
};

const text = (rules: Record<string, string>) =>
  Object.entries(rules).map(([name, value]) => `${name} ${value}`).join('; ');

export const POLICIES = { '/': text(PAGE), '/diagram.html': text(DIAGRAM) };
