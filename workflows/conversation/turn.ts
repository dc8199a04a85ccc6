/** One turn: what is collected for one reply, and the walk along the provider chain until a draft stands. */
import { log, sleep } from '@temporalio/workflow';
import type { Draft, DraftOrder, Recorded } from '../../activities';
import { diedWithItsWorker, failureType, REFUSED_BY_DATABASE } from '../failures';
import { model, records } from '../proxies';
import type { ConversationView } from './view';

/** Over the bound of an attempt, for reading the prompt and storing the draft; a database that is away gets as much. */
const MODEL_GRACE_MS = 20_000;

/** Before a provider is asked again that was not at fault; doubled each time. */
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 20_000;

export interface Turn {
  messageIds: string[];
  firstAtMs: number;
  lastAtMs: number;
  recorded: Recorded;
}

/** The turn with what was just recorded added to it; unchanged when nothing of that wants a reply. */
export function extendTurn(turn: Turn | undefined, recorded: Recorded, arrivedAtMs: number): Turn | undefined {
  if (recorded.answerableIds.length === 0) return turn;
  const messageIds = [...new Set([...(turn?.messageIds ?? []), ...recorded.answerableIds])];
  return { messageIds, firstAtMs: turn?.firstAtMs ?? arrivedAtMs, lastAtMs: arrivedAtMs, recorded };
}

/** How long the customer must still be quiet; bounded from the turn's first message on. */
export function quietLeftMs({ firstAtMs, lastAtMs, recorded: { timings } }: Turn): number {
  return Math.min(lastAtMs + timings.quietMs, firstAtMs + timings.quietMaxMs) - Date.now();
}

/** Records that a turn got no reply. What the database refuses even of that is shown and logged: the conversation goes on. */
export async function failTurn(turn: { conversationId: string; messageIds: string[]; reason: string }, summary: string): Promise<void> {
  try {
    await records.recordFailedTurn.executeWithOptions({ summary }, [turn]);
  } catch (error) {
    if (failureType(error) !== REFUSED_BY_DATABASE) throw error;
    log.error('the database refused to record a failed turn', { conversationId: turn.conversationId, reason: turn.reason });
  }
}

/** Walks the provider chain. Retrying one provider is the activity's policy; going to the next is decided here. */
export async function draftReply(turn: Turn, view: ConversationView): Promise<Draft | { failure: string }> {
  const { timings, providers, conversationId } = turn.recorded;
  const deadlineMs = Date.now() + timings.turnMs;
  const failures: string[] = [];
  for (const { provider, model: name } of providers) {
    const boundMs = deadlineMs - Date.now();
    if (boundMs <= 0) {
      failures.push('turn: out of time');
      break;
    }
    const order = { conversationId, messageIds: turn.messageIds, provider, model: name, attemptMs: timings.modelAttemptMs };
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      try {
        return await ask(order, boundMs, view);
      } catch (error) {
        // Our own trouble says nothing about the provider. The database is waited for as long as it takes.
        const isOurs = failureType(error) === 'RecordError.Unavailable' || (diedWithItsWorker(error) && Date.now() < deadlineMs);
        if (!isOurs) {
          failures.push(`${provider}: ${failureType(error)}`);
          break;
        }
      }
      await sleep(pauseMs, { summary: `no fault of ${provider}: it is asked again` });
    }
  }
  return { failure: failures.length > 0 ? failures.join('; ') : 'no provider has a key' };
}

function ask(order: DraftOrder, boundMs: number, view: ConversationView): Promise<Draft> {
  view.showPhase(`asking ${order.provider}`);
  const options = {
    summary: `reply via ${order.provider}`,
    startToCloseTimeout: order.attemptMs + MODEL_GRACE_MS,
    scheduleToCloseTimeout: boundMs,
  };
  return model.generateReply.executeWithOptions(options, [order]);
}
