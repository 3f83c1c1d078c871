// Work that may wait, done in small pieces so that no frame takes long: formulas, highlighted code.

const SLICE_MS = 8;
const waiting: (() => void)[] = [];
let isScheduled = false;

export function later(work: () => void): void {
  waiting.push(work);
  schedule();
}

function schedule(): void {
  if (isScheduled) return;
  isScheduled = true;
  const channel = new MessageChannel(); // a task of its own: frames and keys come between
  channel.port1.onmessage = run;
  channel.port2.postMessage(null);
}

function run(): void {
  isScheduled = false;
  const end = performance.now() + SLICE_MS;
  while (waiting.length && performance.now() < end) waiting.shift()!();
  if (waiting.length) requestAnimationFrame(schedule);
}
