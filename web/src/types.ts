// What the server says. docs/chats.md describes the routes; times are seconds since 1970, lengths of text JavaScript's.

export type Role = 'user' | 'assistant';
export type Status = 'queued' | 'prompt' | 'running' | 'done' | 'stopped' | 'interrupted' | 'error';
export const EFFORTS = ['none', 'minimal', 'low', 'medium', 'high', 'max'] as const;
export type Effort = (typeof EFFORTS)[number];

export interface Settings {
  system?: string;
  effort?: Effort;
  thinking_budget?: number;
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  repetition_penalty?: number;
  presence_penalty?: number;
  frequency_penalty?: number;
  max_tokens?: number;
  seed?: number;
}

export interface Chat {
  id: string;
  title: string;
  folder_id: string | null;
  is_pinned: boolean;
  created_at: number;
  updated_at: number;
  model: string | null;
  settings: Settings;
  current_id: string | null;
  rev: number;
}

export interface AttachmentInfo {
  id: string;
  name: string;
  kind: string;
  n_chars: number;
  n_tokens: number | null;
  is_cut?: boolean;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  thinking_tokens?: number;
  cached_tokens?: number;
}

export interface Timings {
  first_token_s?: number | null;
  prompt_tokens_per_second?: number | null;
  generated_tokens_per_second?: number | null;
}

export interface Cost {
  seconds: number;
  joules: number | null;
  joules_are: 'measured' | 'estimated';
}

/** What is wrong: a code that stays, and what its text names. */
export interface Cause {
  code: string;
  values?: Record<string, string | number> | null;
}

export interface Message {
  id: string;
  chat_id: string;
  parent_id: string | null;
  role: Role;
  content: string;
  thinking: string;
  thinking_s: number | null;
  status: Status;
  error: string | null;
  cause: Cause | null; // of the error
  attachments: AttachmentInfo[];
  model: string | null;
  usage: Usage | null;
  timings: Timings | null;
  cost: Cost | null;
  rating: -1 | 0 | 1;
  created_at: number;
  finish_reason: string | null;
  rev: number; // grows with each change but text that is added
}

export interface Preset {
  id: string;
  name: string;
  model: string | null;
  settings: Settings;
}

export interface Folder {
  id: string;
  name: string;
}

export interface User {
  id: string;
  name: string;
  role: 'admin' | 'member' | 'local';
}

export interface Session {
  user: User | null;
  needs_login: boolean;
  can_manage: boolean;
}

export interface Account extends User {
  created_at: number;
  has_password: boolean;
  requests_per_minute: number | null;
  concurrent: number | null;
}

export interface Machine {
  cpu: string;
  n_threads: number;
  memory_bytes: number;
  budget_bytes: number | null;
  version: string;
  price: Price | null;
}

export interface Price {
  in_per_million: number;
  out_per_million: number;
  currency: string;
}

export interface LibraryModel {
  name: string;
  title: string;
  is_here: boolean;
  is_loaded: boolean;
  bytes: number | null;
  memory_bytes: number | null;
  fits: boolean | null;
  tokens_per_second: [number, number] | null;
  first_token_s: number | null;
  bound_by: 'disk' | 'memory' | 'compute' | 'overhead' | null;
  has_thinking: boolean;
  is_moe: boolean;
  can_chat: boolean; // others give vectors or scores
  context: number | null;
  description: string;
  licence: string;
  origin: string;
  parameters: number | null;
  streams: boolean | null;
  is_estimate: boolean;
  error?: string; // its file cannot be used
  reason?: string; // why it does not fit
  reason_cause?: Cause | null;
}

export interface Library {
  models: LibraryModel[];
  proposal: string | null;
  pulls: Pull[];
}

export interface AnswerStats {
  message_id: string;
  chat_id: string;
  is_opening: boolean; // waits until its model is open
  n_tokens: number;
  tokens_per_second: number;
  context_used: number | null;
  context: number | null;
}

export interface Stats {
  answers: AnswerStats[];
  tokens_per_second: number | null;
  n_running: number;
  n_waiting: number;
  context_used: number | null;
  context: number | null;
  memory_bytes: number | null;
  budget_bytes: number | null;
  expert_hit_rate: number | null;
}

export interface Alternative {
  text: string;
  logprob: number;
}

export interface Token {
  id: number;
  text: string;
  logprob: number | null;
  top: Alternative[];
  kind: 'content' | 'thinking';
}

export interface Experts {
  n_layers: number;
  n_experts: number;
  counts: number[][];
}

export interface Inside {
  tokens: Token[] | null; // null: nothing was recorded
  experts: Experts | null;
}

export interface Hit {
  chat_id: string;
  message_id: string | null;
  title: string;
  created_at: number;
  snippet: string;
  offsets: [number, number][];
}

export interface Pull {
  name: string;
  done_bytes: number;
  total_bytes: number | null;
  state: 'running' | 'done' | 'failed' | 'cancelled';
  error?: string;
  cause?: Cause | null;
}

export interface Imported {
  n_chats: number;
  n_messages: number;
  warnings: string[];
  causes: (Cause | null)[]; // the same, for other languages
}

export interface Delta {
  chat_id: string;
  message_id: string;
  kind: 'content' | 'thinking';
  from: number;
  text: string;
  rev: number;
}
