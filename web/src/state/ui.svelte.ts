// Where the page is, what lies over it, what it says in passing.

import { untrack } from 'svelte';
import { ApiError } from '../api';
import { t } from '../i18n/index.svelte';
import { told, type Told } from '../i18n/said';

export type View = 'chat' | 'models' | 'settings' | 'phone' | 'accounts';
export type Sheet = 'search' | 'shortcuts' | 'chat-settings' | 'folder' | null;

export interface Route {
  view: View;
  chat: string | null;
  message: string | null; // to be scrolled to
}

export function readRoute(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?');
  const [first = '', second] = path.split('/').map(decodeURIComponent);
  const message = new URLSearchParams(query).get('m');
  if (first === 'c' && second) return { view: 'chat', chat: second, message };
  const views: View[] = ['models', 'settings', 'phone', 'accounts'];
  return { view: views.find((view) => view === first) ?? 'chat', chat: null, message: null };
}

export interface Toast {
  id: number;
  text: string;
  hint: string;
  isError: boolean;
  undo?: () => void;
}

export interface Question {
  text: string;
  action: string;
  isGrave: boolean;
  answer: (isYes: boolean) => void;
}

class Ui {
  route = $state.raw<Route>(readRoute(location.hash));
  sheet = $state<Sheet>(null);
  isDrawerOpen = $state(false); // the sidebar on a phone
  toasts = $state<Toast[]>([]);
  question = $state.raw<Question | null>(null);
  spoken = $state(''); // for screen readers
  isOnline = $state(true); // whether the server answers
  private lastToast = 0;

  go(hash: string): void {
    this.isDrawerOpen = false;
    if (location.hash === hash) this.route = readRoute(hash);
    else location.hash = hash;
  }

  openChat(chat: string | null, message?: string | null): void {
    this.go(chat ? `#/c/${encodeURIComponent(chat)}${message ? `?m=${encodeURIComponent(message)}` : ''}` : '#/');
  }

  say(text: string, options: Partial<Toast> = {}): void {
    const toast: Toast = { id: ++this.lastToast, text, hint: '', isError: false, ...options };
    this.toasts = [...this.toasts.slice(-3), toast];
    setTimeout(() => this.dismiss(toast.id), options.isError ? 9000 : 5000);
  }

  fail(error: unknown): void {
    if (error instanceof DOMException && error.name === 'AbortError') return;
    if (!(error instanceof ApiError)) {
      console.error(error);
      return this.say(t('error.unexpected'), { isError: true });
    }
    const { text, detail } = wordsOf(error);
    this.say(text, { hint: detail, isError: true });
  }

  dismiss(id: number): void {
    this.toasts = this.toasts.filter((toast) => toast.id !== id);
  }

  ask(text: string, action: string, isGrave = true): Promise<boolean> {
    return new Promise((resolve) => {
      this.question = {
        text,
        action,
        isGrave,
        answer: (isYes) => {
          this.question = null;
          resolve(isYes);
        },
      };
    });
  }

  /** Let a screen reader say this when it has time. */
  announce(text: string): void {
    const last = untrack(() => this.spoken);
    this.spoken = last === text ? `${text}\u00a0` : text;
  }
}

export const ui = new Ui();
addEventListener('hashchange', () => (ui.route = readRoute(location.hash)));

/** What a failed request is told with. */
export function wordsOf(error: unknown): Told {
  const isReply = error instanceof ApiError && error.status !== 0;
  return isReply ? told(error.cause, error.message, error.status) : { text: t('error.unreachable'), detail: '' };
}

/** Do something that talks to the server; say what went wrong. Gives undefined then. */
export async function attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    ui.fail(error);
    return undefined;
  }
}
