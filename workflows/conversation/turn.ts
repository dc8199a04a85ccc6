/** One turn: what is collected for one reply, until a draft stands. */
import { log } from '@temporalio/workflow';
import type { Draft, MovedTurn, Recorded, WithheldTurn } from '../../activities';
import { failureType, REFUSED_BY_DATABASE } from '../failures';
import { records } from '../proxies';

/** Grows until a model has answered: messages that arrive meanwhile are added, and are in the next prompt. */
export interface Turn {
  /** Oldest first; only ever appended to. */
  messageIds: string[];
  firstAtMs: number;
  lastAtMs: number;
  recorded: Recorded;
}

/** A draft, or why there is none. `askedIds`: the messages concerned; later ones belong to the next turn. */
export type DraftResult = ({ draft: Draft } | { failure: string } | MovedTurn | WithheldTurn) & { askedIds: string[] };

/** Adds what was just recorded to `turn` itself, or starts a turn; unchanged if none of it needs a reply. */
export function extendTurn(turn: Turn | undefined, recorded: Recorded, arrivedAtMs: number): Turn | undefined {
  const { answerableIds } = recorded;
  if (answerableIds.length === 0) return turn;
  if (!turn) return { messageIds: [...answerableIds], firstAtMs: arrivedAtMs, lastAtMs: arrivedAtMs, recorded };
  const known = new Set(turn.messageIds);
  turn.messageIds.push(...answerableIds.filter((id) => !known.has(id)));
  turn.lastAtMs = arrivedAtMs;
  turn.recorded = recorded;
  return turn;
}

/** How long the customer must still be quiet; bounded from the turn's first message on. */
export function quietLeftMs({ firstAtMs, lastAtMs, recorded: { timings } }: Turn): number {
  return Math.min(lastAtMs + timings.quietMs, firstAtMs + timings.quietMaxMs) - Date.now();
}

/** Records that a turn got no reply. If the database refuses even this, only logs it, so that the conversation can continue. */
export async function failTurn(turn: { conversationId: string; messageIds: string[]; reason: string }, summary: string): Promise<void> {
  try {
    await records.recordFailedTurn.executeWithOptions({ summary }, [turn]);
  } catch (error) {
    if (failureType(error) !== REFUSED_BY_DATABASE) throw error;
    log.error('the database refused to record a failed turn', { conversationId: turn.conversationId, reason: turn.reason });
  }
}
