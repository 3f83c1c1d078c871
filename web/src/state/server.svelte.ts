// What the server is: who we are to it, the machine, its models and how it is doing.

import { models as api, session as sessions, ApiError } from '../api';
import { told } from '../i18n/said';
import type { Library, LibraryModel, Machine, Price, Pull, Session, Stats } from '../types';
import { prefs } from './prefs.svelte';
import { attempt, ui } from './ui.svelte';

class Server {
  session = $state.raw<Session | null>(null);
  machine = $state.raw<Machine | null>(null);
  library = $state.raw<Library | null>(null);
  stats = $state.raw<Stats | null>(null);
  pulls = $state<Record<string, Pull>>({});
  private nReadings = 0; // of the library

  readonly needsLogin = $derived(!!this.session?.needs_login && !this.session.user);
  readonly isReady = $derived(!!this.session && !this.needsLogin);
  readonly here = $derived((this.library?.models ?? []).filter((model) => model.is_here));
  readonly speakers = $derived(this.here.filter((model) => model.can_chat));
  readonly price = $derived<Price | null>(this.machine?.price ?? null);

  async connect(): Promise<void> {
    try {
      this.session = await sessions.get();
      ui.isOnline = true;
      if (this.isReady) await Promise.all([this.readMachine(), this.readLibrary()]);
    } catch (error) {
      if (error instanceof ApiError && error.status === 0) ui.isOnline = false;
      else throw error;
    }
  }

  async readMachine(): Promise<void> {
    this.machine = await ifThere(api.machine());
  }

  /** What the library has and what comes into it, as the server says: one that was started again knows of no pull. */
  async readLibrary(): Promise<void> {
    const reading = ++this.nReadings;
    const library = await ifThere(api.library());
    if (reading !== this.nReadings) return; // another one, asked for later, says what is newer
    this.library = library;
    const running = library?.pulls.filter((pull) => pull.state === 'running') ?? [];
    this.pulls = Object.fromEntries(running.map((pull) => [pull.name, pull]));
  }

  /** An admin, or who owns this machine while there are no accounts: then the first one is made. */
  get mayKeepAccounts(): boolean {
    const role = this.session?.user?.role;
    return role === 'admin' || (role === 'local' && !this.session?.needs_login);
  }

  /** The price that answers are compared with; it is the person's, wherever they sign in. */
  async setPrice(price: Price): Promise<void> {
    const set = await attempt(() => api.setPrice(price));
    if (set && this.machine) this.machine = { ...this.machine, price: set };
  }

  model(name: string | null | undefined): LibraryModel | undefined {
    return this.library?.models.find((model) => model.name === name);
  }

  /** Whether there is something to ask, as far as one knows. */
  get hasModel(): boolean {
    return !this.library || this.speakers.length > 0;
  }

  /** The model of a chat that has none: the one last chosen, one that is loaded, or the one to begin with. */
  get usualModel(): string | null {
    const last = this.model(prefs.model);
    if (last?.is_here && last.can_chat) return last.name;
    const proposal = this.speakers.find((model) => model.name === this.library?.proposal);
    return (this.speakers.find((model) => model.is_loaded) ?? proposal ?? this.speakers[0])?.name ?? null;
  }

  onPull(pull: Pull): void {
    this.pulls[pull.name] = pull;
    if (pull.state === 'failed') {
      const { text, detail } = told(pull.cause, pull.error ?? '');
      ui.say(`${pull.name}: ${text}`, { hint: detail, isError: true });
    }
    if (pull.state === 'running') return;
    delete this.pulls[pull.name];
    void this.readLibrary().catch((error: unknown) => ui.fail(error));
  }
}

/** A server that lacks a route can still chat. */
async function ifThere<T>(reading: Promise<T>): Promise<T | null> {
  try {
    return await reading;
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

export const server = new Server();

export function moneyOf(usage: { prompt_tokens: number; completion_tokens: number }, price: Price): number {
  return (usage.prompt_tokens * price.in_per_million + usage.completion_tokens * price.out_per_million) / 1e6;
}
