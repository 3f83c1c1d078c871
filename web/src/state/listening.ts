// Resolves when events come, or after a while without: what is read later than that misses nothing that happens.

const PATIENCE_MS = 2000;

let begun: () => void;
const listening = new Promise<void>((resolve) => {
  begun = resolve;
});

export function isListening(): void {
  begun();
}

export function waitForEvents(): Promise<void> {
  return Promise.race([listening, new Promise<void>((resolve) => setTimeout(resolve, PATIENCE_MS))]);
}
