// What plan says of a model on this machine, in a line.

import { bytes, duration, number, t } from '../i18n/index.svelte';
import type { LibraryModel } from '../types';

export function speedOf({ tokens_per_second: speed }: LibraryModel): string | null {
  if (!speed) return null;
  const [low, high] = speed.map((n) => number(n, { maximumSignificantDigits: 2 }));
  return low === high ? t('speed', { n: low! }) : t('speed.range', { low: low!, high: high! });
}

export function aboutModel(model: LibraryModel): string {
  const parts = [
    model.memory_bytes !== null && t('model.memory', { size: bytes(model.memory_bytes) }),
    speedOf(model),
    model.first_token_s !== null && t('model.first', { time: duration(model.first_token_s) }),
    model.fits === false && t('model.too.large'),
  ];
  return parts.filter(Boolean).join(' · ');
}
