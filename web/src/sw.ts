// Service worker: the page opens without its server. Only the page's own files are kept, never what the API says.

const FILES = 'SHELL_FILES' as unknown as string[]; // both are put in by the build
const CACHE = `tenth-${'SHELL_VERSION'}`;
const PATIENCE_MS = 3000; // before the kept page is shown although the server may yet answer

interface Lifetime extends Event {
  waitUntil(work: Promise<unknown>): void;
}
interface Fetching extends Lifetime {
  request: Request;
  respondWith(response: Promise<Response>): void;
}
const worker = self as unknown as EventTarget & {
  location: Location;
  skipWaiting(): Promise<void>;
  clients: { claim(): Promise<void> };
};

worker.addEventListener('install', (event) => {
  const fill = async () => {
    await (await caches.open(CACHE)).addAll(FILES.map((file) => new Request(file, { cache: 'reload' })));
    await worker.skipWaiting();
  };
  (event as Lifetime).waitUntil(fill());
});

worker.addEventListener('activate', (event) => {
  const tidy = async () => {
    for (const name of await caches.keys()) if (name.startsWith('tenth-') && name !== CACHE) await caches.delete(name);
    await worker.clients.claim();
  };
  (event as Lifetime).waitUntil(tidy());
});

worker.addEventListener('fetch', (event) => {
  const { request } = event as Fetching;
  const { origin, pathname } = new URL(request.url);
  if (request.method !== 'GET' || origin !== worker.location.origin) return;
  if (request.mode === 'navigate' && pathname === '/') (event as Fetching).respondWith(page(request));
  else if (pathname.startsWith('/assets/') || FILES.includes(pathname)) (event as Fetching).respondWith(asset(request));
});

/** The newest page if the server answers soon, else the kept one. */
async function page(request: Request): Promise<Response> {
  const kept = await caches.match('/', { cacheName: CACHE });
  if (!kept) return fetch(request);
  const late = new Promise<Response>((resolve) => setTimeout(() => resolve(kept), PATIENCE_MS));
  const fresh = fetch(request).then((response) => (response.ok ? response : kept), () => kept);
  return Promise.race([fresh, late]);
}

/** Names of assets change with their content, so a kept one is right. */
async function asset(request: Request): Promise<Response> {
  const kept = await caches.match(request, { cacheName: CACHE });
  if (kept) return kept;
  const response = await fetch(request);
  if (response.ok) await (await caches.open(CACHE)).put(request, response.clone());
  return response;
}
