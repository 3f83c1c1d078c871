import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';
import { oneFontFormat } from './tools/fonts.ts';
import { shell } from './tools/shell.ts';
import { words } from './tools/words.ts';

export default defineConfig({
  plugins: [words(), oneFontFormat(), svelte({ compilerOptions: { runes: true } }), shell()],
  build: {
    outDir: '../src/tenth/server/page',
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0, // a policy without data: for fonts and styles
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 1500,
    rollupOptions: {
      input: { index: 'index.html', diagram: 'diagram.html', sw: 'src/sw.ts' },
      output: {
        entryFileNames: ({ name }) => (name === 'sw' ? 'sw.js' : 'assets/[name]-[hash].js'),
        assetFileNames: 'assets/[name]-[hash][extname]',
      },
    },
  },
  worker: { format: 'es' },
});
