// Shortcuts: one table, from which the sheet is made, too. Alt keys are read by place on the keyboard, because Alt changes
// what they type; so they are the same on every layout.

import type { PlainKey } from './i18n/index.svelte';
import { copyText } from './parts/clipboard';
import { t } from './i18n/index.svelte';
import { chats } from './state/chats.svelte';
import { prefs } from './state/prefs.svelte';
import type { LiveMessage } from './state/message.svelte';
import type { Thread } from './state/thread.svelte';
import { ui } from './state/ui.svelte';

interface Shortcut {
  keys: string[]; // as shown
  label: PlainKey;
  code: string; // KeyboardEvent.code, or .key where it is a character
  alt?: boolean;
  ctrl?: boolean;
  shift?: boolean;
  run: (thread: Thread | null) => unknown;
}

export const SHORTCUTS: Shortcut[] = [
  { keys: ['Ctrl', 'Shift', 'O'], label: 'chat.new', code: 'KeyO', ctrl: true, shift: true, run: () => (ui.openChat(null), focusComposer()) },
  { keys: ['Ctrl', 'K'], label: 'search', code: 'KeyK', ctrl: true, run: () => (ui.sheet = ui.sheet === 'search' ? null : 'search') },
  { keys: ['Ctrl', '/'], label: 'shortcuts', code: '/', ctrl: true, run: () => (ui.sheet = ui.sheet === 'shortcuts' ? null : 'shortcuts') },
  { keys: ['Ctrl', 'Shift', 'S'], label: 'sidebar.toggle', code: 'KeyS', ctrl: true, shift: true, run: toggleSidebar },
  { keys: ['Shift', 'Esc'], label: 'shortcut.composer', code: 'Escape', shift: true, run: focusComposer },
  { keys: ['Esc'], label: 'stop', code: 'Escape', run: (thread) => (ui.isDrawerOpen ? (ui.isDrawerOpen = false) : thread?.stop()) },
  { keys: ['Alt', 'T'], label: 'thinking.end', code: 'KeyT', alt: true, run: (thread) => thread?.endThinking() },
  { keys: ['Alt', 'C'], label: 'shortcut.copy', code: 'KeyC', alt: true, run: (thread) => copyLast(thread) },
  { keys: ['Alt', 'R'], label: 'regenerate', code: 'KeyR', alt: true, run: (thread) => withLast(thread, (last) => thread!.regenerate(last)) },
  { keys: ['Alt', 'G'], label: 'continue', code: 'KeyG', alt: true, run: (thread) => withLast(thread, (last) => thread!.resume(last)) },
  { keys: ['Alt', 'E'], label: 'shortcut.edit', code: 'KeyE', alt: true, run: () => press('[data-action=edit]') },
  { keys: ['Alt', 'I'], label: 'inside', code: 'KeyI', alt: true, run: () => press('[data-action=inside]') },
  { keys: ['Alt', ','], label: 'branch.previous', code: 'Comma', alt: true, run: (thread) => walk(thread, -1) },
  { keys: ['Alt', '.'], label: 'branch.next', code: 'Period', alt: true, run: (thread) => walk(thread, 1) },
  { keys: ['Alt', '↑'], label: 'shortcut.chat.previous', code: 'ArrowUp', alt: true, run: () => step(-1) },
  { keys: ['Alt', '↓'], label: 'shortcut.chat.next', code: 'ArrowDown', alt: true, run: () => step(1) },
  { keys: ['Alt', 'A'], label: 'attach', code: 'KeyA', alt: true, run: () => press('[data-action=attach]') },
  { keys: ['Alt', 'M'], label: 'model.choose', code: 'KeyM', alt: true, run: () => press('[data-action=model]') },
  { keys: ['Alt', 'S'], label: 'chat.settings', code: 'KeyS', alt: true, run: () => (ui.sheet = ui.sheet === 'chat-settings' ? null : 'chat-settings') },
];

export function onShortcut(event: KeyboardEvent, thread: Thread | null): void {
  if (event.defaultPrevented || event.isComposing) return;
  const found = SHORTCUTS.find((one) => isPressed(one, event));
  if (!found) return;
  const isOver = !!document.querySelector('dialog[open], [popover]:popover-open');
  if (isOver && !(found.ctrl && ui.sheet)) return;
  event.preventDefault();
  void found.run(thread);
}

function isPressed({ code, alt, ctrl, shift }: Shortcut, event: KeyboardEvent): boolean {
  const isKey = event.code === code || (code.length === 1 && event.key === code);
  const isShift = code === '/' || event.shiftKey === !!shift; // on some keyboards "/" needs Shift
  return isKey && isShift && event.altKey === !!alt && (event.ctrlKey || event.metaKey) === !!ctrl;
}

function focusComposer(): void {
  requestAnimationFrame(() => document.querySelector<HTMLElement>('[data-action=write]')?.focus());
}

export function toggleSidebar(): void {
  if (matchMedia('(max-width: 52rem)').matches) ui.isDrawerOpen = !ui.isDrawerOpen;
  else prefs.isSidebarShown = !prefs.isSidebarShown;
}

/** Press the last button of this kind, so that a shortcut does exactly what the button does. */
function press(selector: string): void {
  const found = [...document.querySelectorAll<HTMLElement>(selector)].at(-1);
  found?.focus();
  found?.click();
}

function withLast(thread: Thread | null, work: (last: LiveMessage) => unknown): unknown {
  const last = thread?.path.findLast((message) => message.role === 'assistant');
  return last && work(last);
}

async function copyLast(thread: Thread | null): Promise<void> {
  await withLast(thread, async (last) => {
    if (await copyText(last.content)) ui.say(t('copied'));
  });
}

/** The neighbour of the lowest message that has versions. */
function walk(thread: Thread | null, by: number): void {
  const message = thread?.path.findLast((one) => thread.siblings(one).length > 1);
  if (!thread || !message) return;
  const versions = thread.siblings(message);
  const next = versions[versions.indexOf(message) + by];
  if (next) void thread.walk(next);
}

function step(by: number): void {
  const all = chats.sorted;
  const now = all.findIndex((chat) => chat.id === ui.route.chat);
  const next = all[now < 0 ? 0 : now + by];
  if (next) ui.openChat(next.id);
}
