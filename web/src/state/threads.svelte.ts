// The chats that are open in this page: the last few, so that going back to one is immediate.

import { ApiError } from '../api';
import type { Chat } from '../types';
import { onKept } from './kept';
import { lasting } from './lasting.svelte';
import { waitForEvents } from './listening';
import { Thread } from './thread.svelte';
import { ui } from './ui.svelte';

const KEPT = 6;

class Threads {
  private open = new Map<string, Thread>();

  /** A chat that is open, if it is. */
  of(id: string): Thread | undefined {
    return this.open.get(id);
  }

  /** Open a chat; it fills when the server has answered. */
  get(id: string): Thread {
    const known = this.open.get(id);
    const thread = known ?? lasting(() => new Thread(id));
    this.open.delete(id);
    this.open.set(id, thread);
    if (!known) void this.read(thread);
    for (const old of this.open.keys()) if (this.open.size > KEPT) this.open.delete(old);
    return thread;
  }

  private async read(thread: Thread): Promise<void> {
    try {
      await waitForEvents();
      await thread.read();
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) return ui.fail(error); // read again when the server is back
      this.open.delete(thread.id);
      thread.isMissing = true;
    }
  }

  async reload(): Promise<void> {
    await Promise.all([...this.open.values()].map((thread) => this.read(thread)));
  }

  onChat(chat: Chat): void {
    this.open.get(chat.id)?.onChat(chat);
  }

  onDeleted(id: string): void {
    this.open.delete(id);
  }
}

export const threads = new Threads();
onKept((name) => threads.of(name.replace(/^waiting\./, ''))?.readWaiting());
