// What this browser remembers: looks and habits, nothing of any chat.

import { isLanguage, preferred, type Language } from '../i18n/languages';

export type Theme = 'system' | 'light' | 'dark';
export type Contrast = 'system' | 'more';
export type Motion = 'system' | 'less';

interface Stored {
  language: Language | null; // null: the browser's
  theme: Theme;
  contrast: Contrast;
  motion: Motion;
  isSidebarShown: boolean;
  isEnterNewLine: boolean;
  isReadAloud: boolean; // screen readers hear the answer as it comes
  model: string | null; // last chosen, for new chats
}

const NAME = 'tenth.preferences';
const DEFAULTS: Stored = {
  language: null,
  theme: 'system',
  contrast: 'system',
  motion: 'system',
  isSidebarShown: true,
  isEnterNewLine: false,
  isReadAloud: true,
  model: null,
};

function read(): Stored {
  try {
    return { ...DEFAULTS, ...(JSON.parse(localStorage.getItem(NAME) ?? '{}') as Partial<Stored>) };
  } catch {
    return { ...DEFAULTS };
  }
}

export const prefs = $state<Stored>(read());

// What is changed in one tab is so in the others.
addEventListener('storage', (event) => {
  if (event.key === NAME) Object.assign(prefs, read());
});

export function chosenLanguage(): Language {
  return prefs.language && isLanguage(prefs.language) ? prefs.language : preferred();
}

const isDark = matchMedia('(prefers-color-scheme: dark)');

/** Keep the preferences, and let the page look as they say. Call inside an effect root. */
export function keepPreferences(): void {
  $effect(() => {
    try {
      localStorage.setItem(NAME, JSON.stringify(prefs));
    } catch {
      // private windows may refuse: then they last as long as the page
    }
  });
  $effect(() => {
    const { dataset } = document.documentElement;
    const paint = () => {
      dataset.theme = prefs.theme === 'system' ? (isDark.matches ? 'dark' : 'light') : prefs.theme;
      const colour = getComputedStyle(document.documentElement).getPropertyValue('--page').trim();
      document.querySelector('meta[name=theme-color]')?.setAttribute('content', colour);
    };
    dataset.contrast = prefs.contrast;
    dataset.motion = prefs.motion;
    paint();
    isDark.addEventListener('change', paint);
    return () => isDark.removeEventListener('change', paint);
  });
}
