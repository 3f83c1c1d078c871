// What is written and not with the server yet, kept in this browser so that a reload loses nothing of it.

const PREFIX = 'tenth.kept.';

export function keep(name: string, value: unknown): void {
  try {
    const isNothing = !value || (Array.isArray(value) && !value.length);
    if (isNothing) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // no room, or a private window that refuses: then it lasts as long as the page
  }
}

export function kept<T>(name: string): T | null {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name) ?? 'null') as T | null;
  } catch {
    return null;
  }
}

/** When somebody leaves, nothing of theirs stays. */
export function forgetKept(): void {
  for (const name of Object.keys(localStorage)) if (name.startsWith(PREFIX)) localStorage.removeItem(name);
}

/** Call with the name of what another page of this browser has changed. */
export function onKept(changed: (name: string) => void): void {
  addEventListener('storage', ({ key }) => {
    if (key?.startsWith(PREFIX)) changed(key.slice(PREFIX.length));
  });
}
