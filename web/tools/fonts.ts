// Vite plugin: of KaTeX's fonts only WOFF2, which every browser that can run this page reads.

import type { Plugin } from 'vite';

export function oneFontFormat(): Plugin {
  return {
    name: 'tenth-fonts',
    enforce: 'pre',
    transform(code, id) {
      if (!id.includes('katex.min.css')) return null;
      return code.replace(/,url\([^)]*\.(woff|ttf)\) format\("[a-z]+"\)/g, '');
    },
  };
}
