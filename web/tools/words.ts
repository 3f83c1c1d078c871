// Vite plugin: every language has every text, with the same placeholders and the plural forms it needs; every text is used;
// no component holds a text of its own. Anything else fails the build.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'svelte/compiler';
import type { Plugin } from 'vite';
import { CODES } from '../src/i18n/languages.ts';
import ar from '../src/i18n/ar.ts';
import de from '../src/i18n/de.ts';
import en from '../src/i18n/en.ts';
import es from '../src/i18n/es.ts';
import fr from '../src/i18n/fr.ts';
import hi from '../src/i18n/hi.ts';
import sw from '../src/i18n/sw.ts';
import zh from '../src/i18n/zh.ts';

type Entry = string | Record<string, string>;
type Texts = Record<string, Entry>;
const ALL: Record<string, Texts> = { ar, de, en, es, fr, hi, sw, zh };
const SPOKEN = ['aria-label', 'title', 'placeholder', 'alt', 'label']; // attributes that people read or hear
const COUNTS = Array.from({ length: 1000 }, (_, n) => n); // what has to have its form; French has one more from a million on
const NAMES = new Set(['tenth']); // the same in every language

export function words(): Plugin {
  return {
    name: 'tenth-words',
    buildStart() {
      const wrong = [...problems(ALL, CODES), ...unused(), ...sources('.svelte').flatMap(written)];
      if (wrong.length) this.error(`${wrong.length} problems with texts:\n${wrong.join('\n')}`);
    },
  };
}

/** What is missing or wrong in the catalogues. */
export function problems(all: Record<string, Texts>, codes: readonly string[]): string[] {
  const found: string[] = [];
  for (const code of codes) {
    const texts = all[code] ?? {};
    const rules = new Intl.PluralRules(code);
    const forms = [...new Set(COUNTS.map((n) => rules.select(n)))];
    for (const [key, entry] of Object.entries(all.en ?? {})) {
      const own = texts[key];
      if (own === undefined) found.push(`${code}: ${key} is missing`);
      else if (typeof own !== typeof entry) found.push(`${code}: ${key} has to be ${typeof entry === 'string' ? 'one text' : 'plural forms'}`);
      else found.push(...entryProblems(code, key, entry, own, forms));
    }
    for (const key of Object.keys(texts)) if (!(key in (all.en ?? {}))) found.push(`${code}: ${key} is not in English`);
  }
  return found;
}

function entryProblems(code: string, key: string, english: Entry, own: Entry, forms: string[]): string[] {
  const found: string[] = [];
  const expected = holes(typeof english === 'string' ? english : english.other!);
  const parts = typeof own === 'string' ? { '': own } : own;
  for (const [form, text] of Object.entries(parts)) {
    if (!text.trim()) found.push(`${code}: ${key} is empty`);
    const isNumberSpelt = form !== '' && form !== 'other' && !holes(text).includes('n'); // "one file"
    const given = isNumberSpelt ? [...holes(text), 'n'].sort() : holes(text);
    if (String(given) !== String(expected)) found.push(`${code}: ${key} has {${given}}, expected {${expected}}`);
  }
  if (typeof own !== 'string') for (const form of forms) if (!own[form]) found.push(`${code}: ${key} has no form "${form}"`);
  return found;
}

const holes = (text: string) => [...new Set([...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1]!))].sort();

function sources(end: string): string[] {
  const names = readdirSync('src', { recursive: true }) as string[];
  return names.filter((name) => name.endsWith(end)).map((name) => join('src', name));
}

/** Texts that no source asks for, by name or by the beginning of a name. */
function unused(): string[] {
  const code = [...sources('.svelte'), ...sources('.ts')]
    .filter((name) => !/i18n\/(server\/)?\w\w\.ts$/.test(name))
    .map((name) => readFileSync(name, 'utf8'))
    .join('\n');
  const beginnings = [...code.matchAll(/(?:t|lookUp)\(`([\w.-]+)\$\{/g)].map((match) => match[1]!);
  return Object.keys(en)
    .filter((key) => !code.includes(`'${key}'`) && !beginnings.some((start) => key.startsWith(start)))
    .map((key) => `en: ${key} is used nowhere`);
}

interface Node {
  type: string;
  name?: string;
  data?: string;
  start?: number;
  [key: string]: unknown;
}

/** Words in a component's markup that are not asked for with t(). */
function written(file: string): string[] {
  const source = readFileSync(file, 'utf8');
  const found: string[] = [];
  const visit = (node: unknown, attribute: string): void => {
    if (Array.isArray(node)) return node.forEach((child) => visit(child, attribute));
    if (!node || typeof node !== 'object') return;
    const { type, name, data, start } = node as Node;
    if (type === 'Text' && (attribute === '' || SPOKEN.includes(attribute)) && /\p{L}{2,}/u.test(data ?? '') && !NAMES.has(data!.trim())) {
      found.push(`${file}:${source.slice(0, start).split('\n').length}: "${data!.trim()}" belongs into the catalogues`);
    }
    const inside = type === 'Attribute' ? (name ?? '') : attribute;
    for (const [key, child] of Object.entries(node)) if (key !== 'expression' && key !== 'parent') visit(child, inside);
  };
  visit(parse(source, { modern: true }).fragment, '');
  return found;
}
