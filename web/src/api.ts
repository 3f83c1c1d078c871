// Every request that the page makes. Nothing else calls fetch.

import type {
  Account, AttachmentInfo, Cause, Chat, Folder, Hit, Imported, Inside, Library, Machine, Message, Preset, Price, Session, Settings, Stats,
} from './types';

export class ApiError extends Error {
  constructor(
    readonly status: number, // 0: the server was not reached
    message: string,
    readonly cause: Cause | null = null,
  ) {
    super(message);
  }
}

type Body = FormData | object | undefined;

async function call<T>(method: string, path: string, body?: Body, signal?: AbortSignal): Promise<T> {
  const response = await ask(method, path, body, signal);
  if (response.status === 204) return undefined as T;
  return (await response.json()) as T;
}

async function ask(method: string, path: string, body?: Body, signal?: AbortSignal): Promise<Response> {
  const isForm = body instanceof FormData;
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      signal: signal ?? null,
      headers: body && !isForm ? { 'content-type': 'application/json' } : {},
      body: body === undefined ? null : isForm ? body : JSON.stringify(body),
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new ApiError(0, '');
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

async function errorOf(response: Response): Promise<ApiError> {
  try {
    const { error } = (await response.json()) as { error: ({ message?: string } & Cause) | string };
    if (typeof error === 'string') return new ApiError(response.status, error);
    return new ApiError(response.status, error.message ?? response.statusText, error);
  } catch {
    return new ApiError(response.status, `${response.status} ${response.statusText}`);
  }
}

const get = <T>(path: string, signal?: AbortSignal) => call<T>('GET', path, undefined, signal);
const post = <T>(path: string, body: Body = {}, signal?: AbortSignal) => call<T>('POST', path, body, signal);
const patch = <T>(path: string, body: Body) => call<T>('PATCH', path, body);
const del = (path: string) => call<unknown>('DELETE', path);
const id = encodeURIComponent;
const at = (chat: string, message: string, end = '') => `/api/chats/${id(chat)}/messages/${id(message)}${end}`;

export interface NewMessage {
  parent_id: string | null;
  content: string;
  attachment_ids?: string[];
  model?: string | null;
  settings?: Settings;
  client_id: string;
}
export type Answered = { user: Message; answer: Message };
export type Credentials = { name: string; password: string } | { key: string } | { pairing: string };
export type ChatChange = Partial<Pick<Chat, 'title' | 'folder_id' | 'is_pinned' | 'model' | 'settings' | 'current_id'>>;

export const session = {
  get: () => get<Session>('/api/session'),
  login: (who: Credentials) => post<Session>('/api/session', who),
  changePassword: (old_password: string, password: string) => post<unknown>('/api/session/password', { old_password, password }),
  logout: () => del('/api/session'),
  pair: () => post<{ url: string; expires_at: number; is_tls: boolean; authority: string | null }>('/api/pairing'),
};

export const chats = {
  page: (query: { limit?: number; before?: number; folder_id?: string; pinned?: boolean } = {}) =>
    get<{ chats: Chat[]; has_more: boolean }>(`/api/chats${search(query)}`),
  make: (chat: Partial<Chat> = {}) => post<Chat>('/api/chats', chat),
  get: (chat: string) => get<{ chat: Chat; messages: Message[] }>(`/api/chats/${id(chat)}`),
  change: (chat: string, change: ChatChange) => patch<Chat>(`/api/chats/${id(chat)}`, change),
  remove: (chat: string) => del(`/api/chats/${id(chat)}`),
  search: (q: string, signal?: AbortSignal) => get<{ hits: Hit[] }>(`/api/search${search({ q, limit: 30 })}`, signal),
  import: (file: File) => post<Imported>('/api/import', form(file)),
  exportPath: (format: 'json' | 'markdown', chat?: string) => `/api/export${search({ format, chat_id: chat })}`,
};

export const messages = {
  send: (chat: string, message: NewMessage) => post<Answered>(`/api/chats/${id(chat)}/messages`, message),
  regenerate: (chat: string, message: string, how: { model?: string | null; settings?: Settings } = {}) =>
    post<{ answer: Message }>(at(chat, message, '/regenerate'), how),
  resume: (chat: string, message: string) => post<{ answer: Message }>(at(chat, message, '/continue')),
  stop: (chat: string, message: string) => post<unknown>(at(chat, message, '/stop')),
  endThinking: (chat: string, message: string) => post<unknown>(at(chat, message, '/end-thinking')),
  change: (chat: string, message: string, change: { content?: string; rating?: number }) =>
    patch<Message>(at(chat, message), change),
  remove: (chat: string, message: string) => del(at(chat, message)),
  inside: (chat: string, message: string) => get<Inside>(at(chat, message, '/tokens')),
};

export const attachments = {
  file: (file: File, signal?: AbortSignal) => post<AttachmentInfo>('/api/attachments', form(file), signal),
  text: async (attachment: string) => (await ask('GET', `/api/attachments/${id(attachment)}/text`)).text(),
};

export const folders = {
  all: async () => (await get<{ folders: Folder[] }>('/api/folders')).folders,
  make: (name: string) => post<Folder>('/api/folders', { name }),
  rename: (folder: string, name: string) => patch<Folder>(`/api/folders/${id(folder)}`, { name }),
  remove: (folder: string) => del(`/api/folders/${id(folder)}`),
};

export const presets = {
  all: async () => (await get<{ presets: Preset[] }>('/api/presets')).presets,
  make: (preset: Omit<Preset, 'id'>) => post<Preset>('/api/presets', preset),
  change: (preset: string, change: Partial<Omit<Preset, 'id'>>) => patch<Preset>(`/api/presets/${id(preset)}`, change),
  remove: (preset: string) => del(`/api/presets/${id(preset)}`),
};

export const models = {
  machine: () => get<Machine>('/api/machine'),
  setPrice: (price: Price) => call<Price>('PUT', '/api/price', price),
  library: () => get<Library>('/api/library'),
  stats: () => get<Stats>('/api/stats'),
  pull: (name: string) => post<unknown>('/api/library/pull', { name }),
  cancel: (name: string) => post<unknown>('/api/library/cancel', { name }),
  remove: (name: string) => del(`/api/library/${id(name)}`),
};

export const users = {
  all: async () => (await get<{ users: Account[] }>('/api/users')).users,
  make: (user: { name: string; password: string; role: string }) => post<Account>('/api/users', user),
  change: (user: string, change: { password?: string; role?: string; requests_per_minute?: number | null; concurrent?: number | null }) =>
    patch<Account>(`/api/users/${id(user)}`, change),
  remove: (user: string) => del(`/api/users/${id(user)}`),
};

function search(query: Record<string, string | number | boolean | undefined>): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined);
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return text && `?${text}`;
}

function form(file: File): FormData {
  const body = new FormData();
  body.append('file', file, file.name);
  return body;
}
