// Lets a screen reader read an answer while it comes: whole sentences, politely, never the same twice.

import { t } from '../i18n/index.svelte';
import { prefs } from '../state/prefs.svelte';
import { ui } from '../state/ui.svelte';

const PAUSE_MS = 2500;

export class Speaker {
  private said = -1; // characters; -1: not begun
  private last = 0;

  hear(text: string, isAtWork: boolean): void {
    if (this.said < 0) {
      if (!isAtWork) return; // an old answer is read when one goes there
      this.said = text.length;
      ui.announce(t('announce.begun'));
      this.last = performance.now();
    }
    if (!isAtWork) {
      ui.announce(`${prefs.isReadAloud ? text.slice(this.said) : ''} ${t('announce.done')}`.trim());
      this.said = -1;
      return;
    }
    if (!prefs.isReadAloud || performance.now() - this.last < PAUSE_MS) return;
    const end = lastSentence(text);
    if (end <= this.said) return;
    ui.announce(text.slice(this.said, end));
    this.said = end;
    this.last = performance.now();
  }
}

/** Where the last complete sentence ends. */
function lastSentence(text: string): number {
  for (let i = text.length - 1; i > 0; i -= 1) if (/[\n.!?。！？।؟]/.test(text[i - 1]!)) return i;
  return 0;
}
