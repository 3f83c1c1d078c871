// The page's words in the chosen language. `t('key', {name: value})`; keys and their placeholders are checked by types.

import type en from './en';
import type said from './server/en';
import { LANGUAGES, type Language } from './languages';

type English = typeof en;
export type Key = keyof English;
export type Plural = Partial<Record<Intl.LDMLPluralRule, string>> & { other: string };
/** What every language file has to be: the same keys, plural where English is plural. */
export type Catalogue = { [K in Key]: English[K] extends string ? string : Plural };
/** The part of it that is in a file of its own: what the server says. */
export type Said = Record<keyof typeof said, string>;

type Names<Text> = Text extends `${string}{${infer Name}}${infer Rest}` ? Name | Names<Rest> : never;
type Holes<K extends Key> = English[K] extends { other: infer Other } ? Names<Other> | 'n' : Names<English[K]>;
/** Keys of texts without placeholders. */
export type PlainKey = { [K in Key]: [Holes<K>] extends [never] ? K : never }[Key];
type Values<K extends Key> = [Holes<K>] extends [never] ? [] : [Record<Holes<K>, string | number>];

const LOADERS: Record<Language, () => Promise<{ default: Catalogue }>> = {
  en: () => import('./en'),
  de: () => import('./de'),
  fr: () => import('./fr'),
  es: () => import('./es'),
  zh: () => import('./zh'),
  ar: () => import('./ar'),
  hi: () => import('./hi'),
  sw: () => import('./sw'),
};

let code = $state<Language>('en');
let words = $state.raw<Catalogue | null>(null);
let plurals = new Intl.PluralRules('en');
let wanted: Language = 'en';

export async function speak(next: Language): Promise<void> {
  wanted = next;
  const { default: loaded } = await LOADERS[next]();
  if (wanted !== next) return; // another was chosen meanwhile
  words = loaded;
  plurals = new Intl.PluralRules(next);
  code = next;
  document.documentElement.lang = next;
  document.documentElement.dir = LANGUAGES[next].dir;
}

export function t<K extends Key>(key: K, ...values: Values<K>): string {
  return lookUp(key, (values[0] ?? {}) as Record<string, string | number>) ?? '';
}

/** A text whose key is known only now, if there is one. */
export function lookUp(key: string, given: Record<string, string | number> = {}): string | undefined {
  const entry = words?.[key as Key] as string | Plural | undefined;
  if (entry === undefined) return undefined;
  const text = typeof entry === 'string' ? entry : (entry[plurals.select(Number(given.n))] ?? entry.other);
  return text.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = given[name];
    return typeof value === 'number' ? number(value) : (value ?? '');
  });
}

const formats = new Map<string, Intl.NumberFormat>();

export function number(value: number, options: Intl.NumberFormatOptions = {}): string {
  const name = code + JSON.stringify(options);
  let format = formats.get(name);
  if (!format) formats.set(name, (format = new Intl.NumberFormat(code, options)));
  return format.format(value);
}

export function date(seconds: number, options: Intl.DateTimeFormatOptions): string {
  return new Intl.DateTimeFormat(code, options).format(seconds * 1000);
}

const UNITS = ['byte', 'kilobyte', 'megabyte', 'gigabyte', 'terabyte'];

export function bytes(value: number): string {
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = value < 10 && unit > 1 ? 1 : 0;
  return number(value, { style: 'unit', unit: UNITS[unit] ?? 'byte', maximumFractionDigits: digits });
}

export function duration(seconds: number): string {
  const digits = seconds < 0.095 ? { maximumSignificantDigits: 1 } : { maximumFractionDigits: seconds < 10 ? 1 : 0 };
  if (seconds < 60) return number(seconds, { style: 'unit', unit: 'second', unitDisplay: 'narrow', ...digits });
  const minutes = Math.floor(seconds / 60);
  const parts = [number(minutes, { style: 'unit', unit: 'minute', unitDisplay: 'narrow' })];
  const rest = Math.round(seconds - minutes * 60);
  if (rest > 0) parts.push(number(rest, { style: 'unit', unit: 'second', unitDisplay: 'narrow' }));
  return parts.join(' ');
}

export function percent(share: number): string {
  const digits = share < 0.001 ? 2 : share < 0.1 || share > 0.99 ? 1 : 0;
  return number(share, { style: 'percent', maximumFractionDigits: digits });
}
