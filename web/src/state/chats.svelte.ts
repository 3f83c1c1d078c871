// The list of chats and folders.

import { chats as api, folders as folderApi } from '../api';
import type { Chat, Folder, Message, Stats, Status } from '../types';
import { keep } from './kept';
import { attempt, ui } from './ui.svelte';
import { t } from '../i18n/index.svelte';

const AT_WORK: Status[] = ['queued', 'prompt', 'running'];
const PAGE = 60;

export function isAtWork(status: Status): boolean {
  return AT_WORK.includes(status);
}

class Chats {
  all = $state<Record<string, Chat>>({});
  folders = $state<Folder[]>([]);
  hasMore = $state(false);
  running = $state<Record<string, string[]>>({}); // chat -> its answers at work
  isLoaded = $state(false);

  readonly sorted = $derived(Object.values(this.all).sort((a, b) => b.updated_at - a.updated_at));
  readonly pinned = $derived(this.sorted.filter((chat) => chat.is_pinned));

  async load(): Promise<void> {
    const [page, pinned, folders] = await Promise.all([
      api.page({ limit: PAGE }),
      api.page({ limit: PAGE, pinned: true }),
      folderApi.all(),
    ]);
    this.all = Object.fromEntries([...page.chats, ...pinned.chats].map((chat) => [chat.id, chat]));
    this.hasMore = page.has_more;
    this.running = {}; // the next numbers of the server name those that are
    this.folders = folders;
    this.isLoaded = true;
  }

  async more(): Promise<void> {
    const oldest = this.sorted.filter((chat) => !chat.is_pinned).at(-1);
    const page = await api.page({ limit: PAGE, ...(oldest && { before: oldest.updated_at }) });
    for (const chat of page.chats) this.all[chat.id] = chat;
    this.hasMore = page.has_more;
  }

  async inFolder(folder: string): Promise<void> {
    for (const chat of (await api.page({ limit: PAGE, folder_id: folder })).chats) this.all[chat.id] = chat;
  }

  onChat(chat: Chat): void {
    const known = this.all[chat.id];
    if (!known || chat.rev >= known.rev) this.all[chat.id] = chat;
  }

  onDeleted(id: string): void {
    delete this.all[id];
    delete this.running[id];
    for (const what of ['draft', 'waiting']) keep(`${what}.${id}`, null);
    if (ui.route.chat === id) ui.openChat(null);
  }

  onMessage(message: Message): void {
    if (message.role !== 'assistant') return;
    const others = (this.running[message.chat_id] ?? []).filter((id) => id !== message.id);
    const now = isAtWork(message.status) ? [...others, message.id] : others;
    if (now.length) this.running[message.chat_id] = now;
    else delete this.running[message.chat_id];
  }

  /** Which answers are at work, also those that began before this page was open. */
  onStats({ answers }: Stats): void {
    const running: Record<string, string[]> = {};
    for (const { chat_id, message_id } of answers) (running[chat_id] ??= []).push(message_id);
    this.running = running;
  }

  onFolder(folder: Folder | null, deleted?: string): void {
    const id = folder?.id ?? deleted;
    const others = this.folders.filter((one) => one.id !== id);
    this.folders = (folder ? [...others, folder] : others).sort((a, b) => a.name.localeCompare(b.name));
    if (folder) return;
    for (const chat of Object.values(this.all)) if (chat.folder_id === id) chat.folder_id = null;
  }

  async change(chat: Chat, change: Parameters<typeof api.change>[1]): Promise<void> {
    const changed = await attempt(() => api.change(chat.id, change));
    if (changed) this.onChat(changed);
  }

  /** All there are, also those that are not listed yet. */
  async removeAll(): Promise<void> {
    for (;;) {
      const page = await api.page({ limit: PAGE });
      for (const chat of page.chats) {
        await api.remove(chat.id);
        this.onDeleted(chat.id);
      }
      if (!page.chats.length) return this.load();
    }
  }

  async remove(chat: Chat): Promise<void> {
    if (!(await ui.ask(t('chat.delete.ask', { title: chat.title || t('chat.untitled') }), t('delete')))) return;
    await attempt(async () => {
      await api.remove(chat.id);
      this.onDeleted(chat.id);
    });
  }
}

export const chats = new Chats();
