// A drawer that a finger pushes out of the screen, towards where it came from.

import { ui } from '../state/ui.svelte';

const FAR_PX = 60; // from here on it closes when it is let go

export class Push {
  by = $state(0); // pixels, to the left negative
  private from: number | null = null;

  readonly down = (event: PointerEvent): void => {
    this.from = ui.isDrawerOpen && event.pointerType === 'touch' && event.isPrimary ? event.clientX : null;
  };

  readonly move = (event: PointerEvent): void => {
    if (this.from === null || !event.isPrimary) return;
    const moved = event.clientX - this.from;
    this.by = document.documentElement.dir === 'rtl' ? Math.max(0, moved) : Math.min(0, moved);
  };

  readonly up = (): void => {
    if (Math.abs(this.by) > FAR_PX) ui.isDrawerOpen = false;
    this.stop();
  };

  readonly stop = (): void => {
    this.from = null;
    this.by = 0;
  };
}
