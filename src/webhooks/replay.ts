/** Replays dead letters: reads them and hands them over, as a webhook does. */
import { z } from 'zod';
import type { DeadLetter } from '../../prisma/generated/client';
import type { CallTimings } from '../../workflows/contract';
import { ApiError, logged, RETRY_AFTER } from '../http/errors';
import { isRefused } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import { type KapsoEvent, type MessageEvent, readKapsoBody, readKapsoJson, type StatusEvent } from '../providers/kapso/events';
import { readVapiBody, readVapiJson } from '../providers/vapi/events';
import { clearDeadLetterAttention } from '../record/attention';
import { markReplayed, type RefusedMessage, type Replayed, renewReason } from '../record/dead-letters';
import { type HandOverDependencies, handOver } from './hand-over';
import { signalDeadlineMs, type TemporalRequest } from './signaller';
import { isAnswer } from './spool';
import { ForeignCallError, handOverFact } from './vapi';

export interface ReplayOptions {
  settings: CallTimings;
  logger: Logger;
  /** Undefined until startup is complete. */
  handOverDependencies(): HandOverDependencies | undefined;
}

/**
 * Replays a letter and stores the result in its row. Safe to repeat, because messages, statuses and reports have ids.
 * @throws ApiError 503 if Temporal or the database is unavailable
 */
export type ReplayDeadLetter = (letter: DeadLetter) => Promise<Replayed>;

export function createReplay({ settings, logger, handOverDependencies }: ReplayOptions): ReplayDeadLetter {
  return async (letter) => {
    const dependencies = handOverDependencies();
    if (!dependencies) throw new ApiError(503, 'still starting; please retry', RETRY_AFTER);
    try {
      return await note(letter, await replayLetter(letter, settings, dependencies), dependencies);
    } catch (error) {
      const id = logged(logger, error, 'replaying a dead letter failed');
      throw new ApiError(503, 'the dead letter was not replayed; please retry', RETRY_AFTER, id);
    }
  };
}

async function replayLetter(letter: DeadLetter, settings: CallTimings, dependencies: HandOverDependencies): Promise<Replayed> {
  if (letter.isTruncated) return failed(letter.reason, 'The body was too long to be stored completely.');
  try {
    switch (letter.source) {
      case 'kapso':
        return await takeKapso(letter, dependencies);
      case 'vapi':
        return await takeVapi(letter, settings, dependencies);
      case 'conversation':
        return await takeMessage(letter, dependencies);
      case 'signal':
        return await takeSignal(letter, dependencies);
      default:
        return failed(letter.reason, 'This version does not know the source of the letter.');
    }
  } catch (error) {
    if (!isRefused(error)) throw error;
    return failed('record_refused', 'The database rejected it again; its error is in the log.');
  }
}

async function note(letter: DeadLetter, replayed: Replayed, { db, logger }: HandOverDependencies): Promise<Replayed> {
  const { id } = letter;
  logger.info({ deadLetterId: id, ...replayed }, 'dead letter replayed');
  if (replayed.result === 'failed') {
    await renewReason(db, id, replayed);
    return replayed;
  }
  if (await markReplayed(db, letter)) {
    if (letter.workflowId) await clearDeadLetterAttention(db, letter.workflowId);
    return replayed;
  }
  return failed(letter.reason, 'It arrived again during the replay, and could not be taken.');
}

function failed(reason: string, detail: string): Replayed {
  return { result: 'failed', reason, detail };
}

async function takeKapso(letter: DeadLetter, dependencies: HandOverDependencies): Promise<Replayed> {
  const { body, rawBody, event, workspaceId, phoneNumberId } = letter;
  const eventName = event ?? undefined;
  const read = rawBody ? readKapsoBody(Buffer.from(rawBody), eventName) : readKapsoJson(body, eventName);
  const number = phoneNumberId ?? undefined;
  // As when it arrived: the secret of a workspace proves events of its number only.
  const isForeign = (each: KapsoEvent) => each.type !== 'skipped' && (each.phoneNumberId ?? number) !== number;
  if (workspaceId !== null && (number === undefined || read.some(isForeign)))
    return failed(letter.reason, 'It was signed by one workspace, and is about the number of another.');
  const events =
    workspaceId === null ? read : read.map((each) => (each.type === 'skipped' ? each : { ...each, phoneNumberId: number ?? '' }));
  const ofType = <T extends KapsoEvent['type']>(type: T) =>
    events.filter((each): each is Extract<KapsoEvent, { type: T }> => each.type === type);
  const [messages, statuses]: [MessageEvent[], StatusEvent[]] = [ofType('message'), ofType('status')];
  // What can be read does not wait for the rest.
  await handOver({ messages, statuses, letters: [] }, dependencies);
  const [unread] = ofType('unreadable');
  if (unread) return failed(unread.reason, unread.detail);
  return { result: messages.length + statuses.length > 0 ? 'taken' : 'skipped' };
}

async function takeVapi(
  { body, rawBody, workspaceId, reason }: DeadLetter,
  settings: CallTimings,
  dependencies: HandOverDependencies,
): Promise<Replayed> {
  const message = rawBody ? readVapiBody(Buffer.from(rawBody)) : readVapiJson(body);
  if (message.kind === 'unreadable') return failed(message.reason, message.detail);
  // Nobody is waiting for the response to an old request any more.
  if (message.kind !== 'fact') return { result: 'skipped' };
  try {
    await handOverFact(message, settings, dependencies, workspaceId === null ? undefined : { workspaceId });
  } catch (error) {
    if (error instanceof ForeignCallError) return failed(reason, 'It was signed by one workspace, and is about a call of another.');
    throw error;
  }
  return { result: 'taken' };
}

const text = z.string().min(1);
const refusedMessageSchema = z.object({
  phoneNumberId: text,
  contact: z
    .object({
      phone: text.optional(),
      businessScopedUserId: text.optional(),
      name: text.optional(),
      username: text.optional(),
      formerPhone: text.optional(),
      formerBusinessScopedUserId: text.optional(),
    })
    .refine(({ phone, businessScopedUserId }) => phone !== undefined || businessScopedUserId !== undefined),
  message: z.object({
    id: text,
    providerMessageId: text,
    kind: text,
    text: z.string().optional(),
    payload: z.record(z.string(), z.unknown()).optional(),
    sentAtMs: z.number(),
    isHistory: z.boolean().optional(),
    isInGroup: z.boolean().optional(),
    // Without it, a message of the owner would become one of the customer.
    fromBusiness: z.object({ edits: text.optional(), deletes: text.optional() }).optional(),
  }),
});

async function takeMessage({ body }: DeadLetter, dependencies: HandOverDependencies): Promise<Replayed> {
  const parsed = refusedMessageSchema.safeParse(body);
  if (!parsed.success) return failed('unreadable', 'The letter does not contain a message that this version can read.');
  const { phoneNumberId, contact, message } = parsed.data as RefusedMessage;
  await handOver({ messages: [{ type: 'message', phoneNumberId, contact, message }], statuses: [], letters: [] }, dependencies);
  return { result: 'taken' };
}

const start = z.looseObject({ workflowId: text, taskQueue: text });
const temporalRequestSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('signal_with_start'), workflowType: text, start, signal: text, fact: z.unknown() }),
  z.object({ kind: z.literal('signal'), workflowId: text, signal: text, fact: z.unknown() }),
  z.object({ kind: z.literal('start'), workflowType: text, start }),
]);

async function takeSignal({ body }: DeadLetter, { signaller }: HandOverDependencies): Promise<Replayed> {
  const parsed = temporalRequestSchema.safeParse(body);
  if (!parsed.success) return failed('unreadable', 'The letter does not contain a request that this version can read.');
  try {
    await signaller.send(parsed.data as TemporalRequest, signalDeadlineMs());
  } catch (error) {
    // The workflow has ended, and the event is in the database.
    if (!isAnswer(error)) throw error;
  }
  return { result: 'taken' };
}
