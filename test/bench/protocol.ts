/** The IPC messages between the processes of the benchmark. Plain JSON. */
import type { MessagesReceived } from '../../workflows/contract';

/** The text of every customer message is its mark, so that a reply can name the messages that it answers. */
export const MARK = /\bbench-\d+\b/g;

/** Messages to the sandbox process. */
export type ToSandbox = { type: 'watch'; customers: string[] } | { type: 'settle' };

/** Messages from the sandbox process. */
export type FromSandbox =
  | { type: 'ready'; url: string }
  | { type: 'watched' }
  /** A reply was accepted; `marks` are those of the messages that it answers. */
  | { type: 'reply'; marks: string[]; atMs: number }
  | { type: 'settled'; accepted: number; refused: number; unanswered: number; lostWebhooks: number };

/** An order to the bare driver to signal one message. */
export interface BareOrder {
  type: 'signal';
  mark: string;
  workflowId: string;
  received: MessagesReceived;
}

/** Messages from the bare driver. */
export type FromBareDriver =
  | { type: 'ready' }
  | { type: 'acknowledged'; mark: string; startedAtMs: number; endedAtMs: number }
  | { type: 'refused'; mark: string; reason: string };

/** Messages from the bare worker. */
export type FromBareWorker = { type: 'ready' } | { type: 'done'; mark: string; atMs: number };

/** The machine's monotonic clock in ms, with fractions. The same in every process. */
export function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
