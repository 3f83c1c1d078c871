// What is being written: text and attachments of each chat, and the choices for a chat that is not there yet.

import { ApiError, attachments as api, chats as chatApi } from '../api';
import type { AttachmentInfo, Settings } from '../types';
import { chats } from './chats.svelte';
import { keep, kept } from './kept';
import { lasting } from './lasting.svelte';
import { prefs } from './prefs.svelte';
import { server } from './server.svelte';
import type { Thread } from './thread.svelte';
import { threads } from './threads.svelte';
import { attempt, ui } from './ui.svelte';

export const PASTED_AS_FILE = 4000; // characters of pasted text from which on it becomes an attachment
export const MOST_FILES = 200; // of a folder

export class Upload {
  info = $state.raw<AttachmentInfo | null>(null);
  error = $state.raw<ApiError | null>(null);
  readonly name: string;
  private readonly stop = new AbortController();

  constructor(readonly file: File, name = file.name) {
    this.name = name;
  }

  async send(): Promise<void> {
    try {
      this.info = await api.file(this.file, this.stop.signal);
    } catch (error) {
      if (!(error instanceof ApiError || error instanceof DOMException)) throw error;
      this.error = error instanceof ApiError ? error : new ApiError(0, '');
    }
  }

  cancel(): void {
    this.stop.abort();
  }
}

export class Draft {
  text = $state('');
  uploads = $state<Upload[]>([]);
  isSending = $state(false);

  readonly ready = $derived(this.uploads.flatMap((upload) => (upload.info ? [upload.info] : [])));
  readonly isReading = $derived(this.uploads.some((upload) => !upload.info && !upload.error));
  readonly nTokens = $derived(this.ready.reduce((sum, info) => sum + (info.n_tokens ?? Math.ceil(info.n_chars / 4)), 0));
  readonly isEmpty = $derived(!this.text.trim() && !this.ready.length);

  /** Read these files on the server, two at a time, so that it stays responsive. */
  async add(files: File[]): Promise<void> {
    const waiting = files.map((file) => new Upload(file, (file.webkitRelativePath || file.name).slice(-200)));
    this.uploads.push(...waiting);
    const mine = this.uploads.slice(-waiting.length);
    const work = async () => {
      for (let next = mine.shift(); next; next = mine.shift()) await next.send();
    };
    await Promise.all([work(), work()]);
  }

  remove(upload: Upload): void {
    upload.cancel();
    this.uploads = this.uploads.filter((one) => one !== upload);
  }

  clear(): void {
    this.text = '';
    this.uploads = [];
  }
}

class Drafts {
  private readonly of = new Map<string, Draft>();
  model = $state<string | null>(null); // for a new chat; null: the usual one
  settings = $state.raw<Settings>({});

  get(chat: string | null): Draft {
    const key = chat ?? '';
    const known = this.of.get(key);
    if (known) return known;
    const made = lasting(() => {
      const draft = new Draft();
      draft.text = kept<string>(`draft.${key}`) ?? '';
      $effect(() => keep(`draft.${key}`, draft.text));
      return draft;
    });
    this.of.set(key, made);
    return made;
  }

  /** Send what is written, in this chat or in a new one. */
  async send(draft: Draft, thread: Thread | null): Promise<void> {
    if (draft.isEmpty || draft.isReading || draft.isSending) return;
    draft.isSending = true;
    try {
      const { text, ready } = draft;
      const target = thread ?? (await this.makeChat());
      if (!target) return;
      if (!(await target.ask(text.trim(), ready))) return;
      draft.clear();
      if (!thread) ui.openChat(target.id);
    } finally {
      draft.isSending = false;
    }
  }

  private async makeChat(): Promise<Thread | null> {
    const model = this.model ?? server.usualModel;
    const chat = await attempt(() => chatApi.make({ ...(model && { model }), settings: this.settings }));
    if (!chat) return null;
    chats.onChat(chat);
    const thread = threads.get(chat.id);
    await attempt(() => thread.read());
    this.settings = {};
    this.model = null;
    if (model) prefs.model = model;
    return thread.isLoaded ? thread : null;
  }
}

export const drafts = new Drafts();
