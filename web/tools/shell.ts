// Vite plugin: writes the policies and tells the service worker which files make the shell.

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import type { Plugin, Rollup } from 'vite';
import { POLICIES } from './policy.ts';

type Chunk = Rollup.OutputChunk;

export function shell(): Plugin {
  return {
    name: 'tenth-shell',
    enforce: 'post',
    generateBundle(_, bundle) {
      this.emitFile({ type: 'asset', fileName: 'policies.json', source: `${JSON.stringify(POLICIES, null, 2)}\n` });
      const chunks = Object.values(bundle).filter((file): file is Chunk => file.type === 'chunk');
      const entry = chunks.find((chunk) => chunk.name === 'index' && chunk.isEntry);
      const worker = chunks.find((chunk) => chunk.fileName === 'sw.js');
      if (!entry || !worker) throw new Error('the page has no entry or no service worker');
      const files = new Set<string>(['/', '/manifest.webmanifest']);
      for (const icon of readdirSync('public/icons')) files.add(`/icons/${icon}`);
      const add = (chunk: Chunk | undefined) => {
        if (!chunk || files.has(`/${chunk.fileName}`)) return;
        files.add(`/${chunk.fileName}`);
        for (const style of chunk.viteMetadata?.importedCss ?? []) files.add(`/${style}`);
        for (const name of chunk.imports) add(chunks.find((other) => other.fileName === name));
      };
      add(entry);
      for (const chunk of chunks) if (/\/i18n\/\w\w\.ts$/.test(chunk.facadeModuleId ?? '')) add(chunk);
      const list = [...files].sort();
      const version = createHash('sha256').update(JSON.stringify(list) + readFileSync('index.html', 'utf8')).digest('hex').slice(0, 12);
      worker.code = worker.code
        .replace(/["'`]SHELL_FILES["'`]/, JSON.stringify(list))
        .replace(/["'`]SHELL_VERSION["'`]/, JSON.stringify(version));
    },
  };
}
