// Resolves when events come, or after a while without: what is read later than that misses nothing that happens.

const PATIENCE_MS = 2000;

let begin: () => void;
let state: 'waiting' | 'listening' | 'late' = 'waiting'; // late: something was read before events came
const listening = new Promise<void>((resolve) => {
  begin = resolve;
});

/** Events come. Gives "late" when what was read before them has to be read again. */
export function isListening(): 'listening' | 'late' {
  const was = state;
  state = 'listening';
  begin();
  return was === 'late' ? 'late' : 'listening';
}

export function waitForEvents(): Promise<void> {
  const patience = new Promise<void>((resolve) => {
    setTimeout(() => {
      if (state === 'waiting') state = 'late';
      resolve();
    }, PATIENCE_MS);
  });
  return Promise.race([listening, patience]);
}
