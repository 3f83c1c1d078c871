// One chat that is open: its tree of messages, the branch that is shown, and what can be done with them.

import { SvelteMap } from 'svelte/reactivity';
import { chats as chatApi, messages as api } from '../api';
import type { AttachmentInfo, Chat, Delta, Message, Settings } from '../types';
import { chats } from './chats.svelte';
import { keep, kept } from './kept';
import { LiveMessage } from './message.svelte';
import { attempt } from './ui.svelte';

export interface Waiting {
  client_id: string; // so that it is asked once, whichever page comes to it
  content: string;
  attachments: AttachmentInfo[];
}

/** `crypto.randomUUID` is missing where the connection is not secure. */
const newId = (): string => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;

export class Thread {
  chat = $state.raw<Chat>()!;
  leaf = $state<string | null>(null);
  isLoaded = $state(false);
  isMissing = $state(false);
  readonly messages = new SvelteMap<string, LiveMessage>();

  readonly path = $derived(this.pathTo(this.leaf));
  readonly running = $derived(this.path.find((message) => message.isAtWork));
  waiting = $state<Waiting[]>([]); // questions whose turn comes when the answer at work has ended
  private isNext = false; // one of them is being sent
  private early: Delta[] = []; // came before what they belong to was read
  private readonly gone = new Set<string>(); // messages that were deleted, whatever older news say
  private reading: Promise<void> | null = null;

  constructor(readonly id: string) {
    this.readWaiting();
    $effect(() => keep(`waiting.${id}`, $state.snapshot(this.waiting)));
  }

  /** What waits, as this browser's pages keep it. */
  readWaiting(): void {
    this.waiting = kept<Waiting[]>(`waiting.${this.id}`) ?? [];
  }

  read(): Promise<void> {
    this.reading ??= this.readNow().finally(() => (this.reading = null));
    return this.reading;
  }

  private async readNow(): Promise<void> {
    const before = [...this.messages.keys()]; // what comes while this waits may be news to what it gets
    const { chat, messages } = await chatApi.get(this.id);
    const known = new Set(messages.map((message) => message.id));
    for (const id of before) if (!known.has(id)) this.messages.delete(id);
    for (const message of messages) this.onMessage(message);
    this.onChat(chat);
    const isShown = this.isLoaded && (!this.leaf || this.messages.has(this.leaf));
    if (!isShown) this.leaf = this.deepest(this.chat.current_id ?? [...this.messages.keys()].at(-1) ?? null);
    this.isLoaded = true;
    const early = this.early;
    this.early = [];
    for (const delta of early) this.onDelta(delta);
    void this.next(); // what waited when the page was left
  }

  private pathTo(leaf: string | null): LiveMessage[] {
    const path: LiveMessage[] = [];
    for (let id = leaf; id && path.length <= this.messages.size; ) {
      const message = this.messages.get(id);
      if (!message) break;
      path.unshift(message);
      id = message.parent_id;
    }
    return path;
  }

  /** Other versions of a message, itself among them, oldest first. */
  siblings(message: LiveMessage): LiveMessage[] {
    return this.children(message.parent_id);
  }

  private children(parent: string | null): LiveMessage[] {
    const found = [...this.messages.values()].filter((one) => one.parent_id === parent);
    return found.sort((a, b) => a.created_at - b.created_at);
  }

  /** The newest leaf below a message. */
  private deepest(id: string | null): string | null {
    for (let depth = 0; id && depth <= this.messages.size; depth += 1) {
      const next = this.children(id).at(-1);
      if (!next) return id;
      id = next.id;
    }
    return id;
  }

  onChat(chat: Chat): void {
    if (this.chat && chat.rev < this.chat.rev) return;
    const isMoved = chat.current_id !== this.chat?.current_id;
    this.chat = chat;
    if (isMoved && chat.current_id && this.messages.has(chat.current_id)) this.leaf = this.deepest(chat.current_id);
  }

  onMessage(message: Message): void {
    if (this.gone.has(message.id)) return;
    const known = this.messages.get(message.id);
    if (known) known.set(message);
    else this.messages.set(message.id, new LiveMessage(message));
    const isNext = this.leaf === message.parent_id || this.chat?.current_id === message.id;
    if (this.isLoaded && isNext && !known) this.leaf = message.id;
    if (this.waiting.length) void this.next();
  }

  onMessageDeleted(id: string): void {
    this.gone.add(id);
    const gone = this.messages.get(id);
    if (!gone) return;
    const isShown = this.path.includes(gone);
    const rest = this.siblings(gone).filter((one) => one !== gone);
    for (const one of this.below(id)) this.messages.delete(one);
    if (isShown) this.leaf = this.deepest(rest.at(-1)?.id ?? gone.parent_id);
  }

  private below(id: string): string[] {
    return [id, ...this.children(id).flatMap((child) => this.below(child.id))];
  }

  onDelta(delta: Delta): void {
    if (this.messages.get(delta.message_id)?.add(delta)) return;
    if (!this.isLoaded || this.reading) this.early.push(delta);
    else if (!this.gone.has(delta.message_id)) void attempt(() => this.read());
  }

  /** Ask, or let the question wait while an answer is at work. */
  async ask(content: string, attachments: AttachmentInfo[]): Promise<boolean> {
    if (!this.running) return this.send(content, attachments);
    this.waiting = [...this.waiting, { client_id: newId(), content, attachments }];
    return true;
  }

  forget(waiting: Waiting): void {
    this.waiting = this.waiting.filter((one) => one.client_id !== waiting.client_id);
  }

  /** Send the next question that waits, if nothing is at work. After an error they wait for somebody to look. */
  private async next(): Promise<void> {
    const [first] = this.waiting;
    if (!first || !this.isLoaded || this.running || this.isNext || this.path.at(-1)?.status === 'error') return;
    this.isNext = true;
    if (await this.send(first.content, first.attachments, this.leaf, first.client_id)) this.forget(first);
    this.isNext = false;
  }

  /** Ask now. The question goes below what is shown, or below `parent`. */
  async send(content: string, attachments: AttachmentInfo[], parent: string | null = this.leaf, client_id = newId()): Promise<boolean> {
    const answered = await attempt(() =>
      api.send(this.id, {
        parent_id: parent,
        content,
        attachment_ids: attachments.map(({ id }) => id),
        client_id,
      }),
    );
    if (!answered) return false;
    this.show(answered.user, answered.answer);
    return true;
  }

  private show(...messages: Message[]): void {
    for (const message of messages) this.onMessage(message);
    this.leaf = this.deepest(messages.at(-1)?.id ?? this.leaf);
  }

  /** Ask the same question in other words: a branch beside it. */
  edit(message: LiveMessage, content: string): Promise<boolean> {
    return this.send(content, message.attachments, message.parent_id);
  }

  async regenerate(message: LiveMessage, model?: string): Promise<void> {
    if (message.isAtWork) await this.stop(message);
    const how = model ? { model } : {};
    const made = await attempt(() => api.regenerate(this.id, message.id, how));
    if (made) this.show(made.answer);
  }

  async resume(message: LiveMessage): Promise<void> {
    const made = await attempt(() => api.resume(this.id, message.id));
    if (made) this.show(made.answer);
  }

  async stop(message: LiveMessage | undefined = this.running): Promise<void> {
    if (message) await attempt(() => api.stop(this.id, message.id));
  }

  async endThinking(message: LiveMessage | undefined = this.running): Promise<void> {
    if (message) await attempt(() => api.endThinking(this.id, message.id));
  }

  async rate(message: LiveMessage, rating: -1 | 0 | 1): Promise<void> {
    const before = message.rating;
    message.rating = rating;
    if (!(await attempt(() => api.change(this.id, message.id, { rating })))) message.rating = before;
  }

  async rewrite(message: LiveMessage, content: string): Promise<boolean> {
    const changed = await attempt(() => api.change(this.id, message.id, { content }));
    if (changed) message.set(changed);
    return !!changed;
  }

  async remove(message: LiveMessage): Promise<void> {
    await attempt(async () => {
      await api.remove(this.id, message.id);
      this.onMessageDeleted(message.id);
    });
  }

  /** Show a message, on whichever branch it is. */
  goTo(id: string): void {
    if (this.messages.has(id) && !this.path.some((message) => message.id === id)) this.leaf = this.deepest(id);
  }

  /** Walk to another branch; every page of this owner follows. */
  async walk(message: LiveMessage): Promise<void> {
    this.leaf = this.deepest(message.id);
    await this.change({ current_id: this.leaf });
  }

  async change(change: { model?: string | null; settings?: Settings; current_id?: string | null; title?: string }): Promise<void> {
    const changed = await attempt(() => chatApi.change(this.id, change));
    if (!changed) return;
    this.onChat(changed);
    chats.onChat(changed);
  }
}
