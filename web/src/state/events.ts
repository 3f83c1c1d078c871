// GET /api/events: everything that happens to our things, in any tab and on any device, comes through here.

import type { Chat, Delta, Folder, Message, Preset, Pull, Stats } from '../types';
import { chats } from './chats.svelte';
import { isListening } from './listening';
import { presets } from './presets.svelte';
import { server } from './server.svelte';
import { threads } from './threads.svelte';
import { attempt, ui } from './ui.svelte';

let source: EventSource | null = null;
let retry: ReturnType<typeof setTimeout> | undefined;
let wasLost = false;

const HANDLERS = {
  chat: ({ chat }: { chat: Chat }) => {
    chats.onChat(chat);
    threads.onChat(chat);
  },
  'chat-deleted': ({ id }: { id: string }) => {
    chats.onDeleted(id);
    threads.onDeleted(id);
  },
  message: ({ message }: { message: Message }) => {
    chats.onMessage(message);
    threads.of(message.chat_id)?.onMessage(message);
  },
  'message-deleted': ({ chat_id, id }: { chat_id: string; id: string }) => threads.of(chat_id)?.onMessageDeleted(id),
  delta: (delta: Delta) => threads.of(delta.chat_id)?.onDelta(delta),
  folder: ({ folder }: { folder: Folder }) => chats.onFolder(folder),
  'folder-deleted': ({ id }: { id: string }) => chats.onFolder(null, id),
  preset: ({ preset }: { preset: Preset }) => presets.onPreset(preset),
  'preset-deleted': ({ id }: { id: string }) => presets.onPreset(null, id),
  imported: () => void refresh(),
  stats: (stats: Stats) => {
    server.stats = stats;
    chats.onStats(stats);
  },
  pull: (pull: Pull) => server.onPull(pull),
  library: () => void attempt(() => server.readLibrary()),
  hello: () => {
    if (isListening() === 'late') void refresh();
  },
  reset: () => {
    isListening();
    void refresh();
  },
};

export function listen(): void {
  close();
  source = new EventSource('/api/events');
  source.onopen = onOpen;
  source.onerror = onLost;
  for (const [name, handle] of Object.entries(HANDLERS)) {
    source.addEventListener(name, ({ data }: MessageEvent<string>) => (handle as (value: unknown) => void)(JSON.parse(data)));
  }
}

export function close(): void {
  clearTimeout(retry);
  source?.close();
  source = null;
}

function onOpen(): void {
  ui.isOnline = true;
  if (wasLost) void refresh();
  wasLost = false;
}

/** The browser tries again by itself, unless it was refused: then the session may have ended. */
function onLost(): void {
  ui.isOnline = false;
  wasLost = true;
  if (source?.readyState !== EventSource.CLOSED) return;
  clearTimeout(retry);
  retry = setTimeout(() => void reconnect(), 2000);
}

async function reconnect(): Promise<void> {
  try {
    await server.connect();
    if (server.isReady) listen();
    else if (!server.session) retry = setTimeout(() => void reconnect(), 3000);
  } catch {
    retry = setTimeout(() => void reconnect(), 3000);
  }
}

/** Too much was missed: read everything again. */
async function refresh(): Promise<void> {
  try {
    await Promise.all([chats.load(), threads.reload(), presets.load(), server.readLibrary()]);
  } catch (error) {
    ui.fail(error);
  }
}

document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible' && source?.readyState === EventSource.CLOSED) void reconnect();
});
