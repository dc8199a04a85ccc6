/** What the processes of the benchmark tell each other over their IPC channels. Plain JSON. */
import type { MessagesReceived } from '../../workflows/contract';

/** The text of every customer message is its mark, so that a reply can say which messages it answers. */
export const MARK = /\bbench-\d+\b/g;

export type ToSandbox = { type: 'watch'; customers: string[] } | { type: 'settle' };

export type FromSandbox =
  | { type: 'ready'; url: string }
  | { type: 'watched' }
  /** A reply was accepted, and the marks that it answers. */
  | { type: 'reply'; marks: string[]; atMs: number }
  | { type: 'settled'; accepted: number; refused: number; unanswered: number; lostWebhooks: number };

export interface BareOrder {
  type: 'signal';
  mark: string;
  workflowId: string;
  received: MessagesReceived;
}

export type FromBareDriver =
  | { type: 'ready' }
  | { type: 'acknowledged'; mark: string; startedAtMs: number; endedAtMs: number }
  | { type: 'refused'; mark: string; reason: string };

export type FromBareWorker = { type: 'ready' } | { type: 'done'; mark: string; atMs: number };

/** Milliseconds of the machine's monotonic clock: the same in every process, with fractions, and never set back. */
export function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
