/**
 * The provider chain as conversations started by 0.1 use it: one pass, with retries by the activity's policy. Needed to replay their
 * histories; remove when none of them is open any more.
 */
import { sleep } from '@temporalio/workflow';
import type { Draft, DraftOrder, MovedTurn, WithheldTurn } from '../../activities';
import { diedWithItsWorker, failureType } from '../failures';
import { model } from '../proxies';
import type { DraftResult, Turn } from './turn';
import type { ConversationView } from './view';

/** On top of an attempt's timeout, for loading the prompt and storing the draft, even if the database is unavailable for a while. */
const MODEL_GRACE_MS = 20_000;

/** Before a provider is asked again that was not at fault; doubled each time. */
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 20_000;

export async function walkOnce(turn: Turn, view: ConversationView): Promise<DraftResult> {
  const { timings, providers, conversationId } = turn.recorded;
  const askedIds = [...turn.messageIds];
  const deadlineMs = Date.now() + timings.turnMs;
  const failures: string[] = [];
  for (const { provider, model: name } of providers) {
    const boundMs = deadlineMs - Date.now();
    if (boundMs <= 0) {
      failures.push('turn: out of time');
      break;
    }
    const order = { conversationId, messageIds: askedIds, provider, model: name, attemptMs: timings.modelAttemptMs, supportsSilence: true };
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      try {
        const draft = await ask(order, boundMs, view);
        return 'moved' in draft || 'withheld' in draft ? { ...draft, askedIds: [] } : { draft, askedIds };
      } catch (error) {
        // A failure of our own does not count against the provider. A database outage is waited out, however long it takes.
        const isOurs = failureType(error) === 'RecordError.Unavailable' || (diedWithItsWorker(error) && Date.now() < deadlineMs);
        if (!isOurs) {
          failures.push(`${provider}: ${failureType(error)}`);
          break;
        }
      }
      await sleep(pauseMs, { summary: `no fault of ${provider}: it is asked again` });
    }
  }
  return { failure: failures.length > 0 ? failures.join('; ') : 'no provider has a key', askedIds };
}

function ask(order: DraftOrder, boundMs: number, view: ConversationView): Promise<Draft | MovedTurn | WithheldTurn> {
  view.showPhase(`asking ${order.provider}`);
  const options = {
    summary: `reply via ${order.provider}`,
    startToCloseTimeout: order.attemptMs + MODEL_GRACE_MS,
    scheduleToCloseTimeout: boundMs,
  };
  return model.generateReply.executeWithOptions(options, [order]);
}
