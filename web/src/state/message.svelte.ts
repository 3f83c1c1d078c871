// A message that changes while it is shown.

import type { AttachmentInfo, Cause, Cost, Delta, Message, Role, Status, Timings, Usage } from '../types';

export class LiveMessage {
  readonly id: string;
  readonly parent_id: string | null;
  readonly role: Role;
  readonly created_at: number;
  content = $state('');
  thinking = $state('');
  thinking_s = $state<number | null>(null);
  status = $state<Status>('done');
  error = $state<string | null>(null);
  cause = $state.raw<Cause | null>(null);
  attachments = $state.raw<AttachmentInfo[]>([]);
  model = $state<string | null>(null);
  usage = $state.raw<Usage | null>(null);
  timings = $state.raw<Timings | null>(null);
  cost = $state.raw<Cost | null>(null);
  rating = $state<-1 | 0 | 1>(0);
  finish_reason = $state<string | null>(null);
  private rev = -1; // of what this page knows
  thinkingSince = 0; // ms; when the thinking began, by this page's clock

  constructor(message: Message) {
    this.id = message.id;
    this.parent_id = message.parent_id;
    this.role = message.role;
    this.created_at = message.created_at;
    this.set(message);
  }

  get isAtWork(): boolean {
    return this.status === 'queued' || this.status === 'prompt' || this.status === 'running';
  }

  /** Whether it thinks just now. */
  get isThinking(): boolean {
    return this.status === 'running' && this.thinking !== '' && this.content === '';
  }

  /** Take over what the server says, if it is news: replies, snapshots and events overtake each other. */
  set(message: Message): void {
    if (message.rev < this.rev) return;
    const isSame = message.rev === this.rev; // then only text may have been added
    for (const kind of ['content', 'thinking'] as const) {
      if (!isSame || message[kind].length > this[kind].length) this[kind] = message[kind];
    }
    if (isSame) return;
    this.rev = message.rev;
    this.status = message.status;
    if (this.thinking && !this.thinkingSince) this.thinkingSince = Date.now() - (message.thinking_s ?? 0) * 1000;
    this.thinking_s = message.thinking_s ?? this.thinking_s;
    this.error = message.error;
    this.cause = message.cause;
    this.attachments = message.attachments;
    this.model = message.model;
    this.usage = message.usage;
    this.timings = message.timings;
    this.cost = message.cost;
    this.rating = message.rating;
    this.finish_reason = message.finish_reason;
  }

  /** New text. False when something before it is missing. */
  add({ kind, from, text, rev }: Delta): boolean {
    if (rev !== this.rev) return rev < this.rev;
    const known = this[kind].length;
    if (from > known) return false;
    const more = text.slice(known - from);
    if (!more) return true;
    if (kind === 'thinking' && !this.thinkingSince) this.thinkingSince = Date.now();
    if (this.status === 'prompt' || this.status === 'queued') this.status = 'running';
    if (kind === 'content' && !this.content && this.thinkingSince) this.thinking_s = (Date.now() - this.thinkingSince) / 1000;
    this[kind] += more;
    return true;
  }
}
