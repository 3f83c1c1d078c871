// What the server says, in the page's language: by the code of an error, else by its status with the server's own words.

import type { Cause } from '../types';
import { bytes, lookUp } from './index.svelte';

export interface Told {
  text: string;
  detail: string; // in English
}

const IN_BYTES = ['bytes', 'free', 'budget'];
const PLAIN = ['status']; // numbers that are names

export function told(cause: Cause | null | undefined, message = '', status = 500): Told {
  const known = cause && lookUp(`server.${cause.code}`, shown(cause.values ?? {}));
  if (known) return { text: known, detail: '' };
  return { text: lookUp(`failed.${status}`) ?? lookUp(status < 500 ? 'failed.400' : 'failed.500') ?? message, detail: message };
}

function shown(values: Record<string, string | number>): Record<string, string | number> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, show(name, value)]));
}

function show(name: string, value: string | number): string | number {
  if (typeof value === 'number' && IN_BYTES.includes(name)) return bytes(value);
  if (name === 'field') return lookUp(`setting.${value}`) ?? lookUp(`account.${value}`) ?? lookUp(`${value}`) ?? value;
  return PLAIN.includes(name) ? String(value) : value;
}

/** What the catalogue says of a model behind the colon of its title: "SmolLM2 135M, Q4_1: the smallest that chats". */
export function aboutOf(name: string, text: string): string {
  const about = lookUp(`about.${name}`);
  return about && text.includes(': ') ? `${text.split(': ', 1)[0]}: ${about}` : text;
}
