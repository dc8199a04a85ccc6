/**
 * Watches conversations whose bot is silent. Nothing here decides what is answered: it signals the conversation's workflow, and starts it
 * if it is not running. Runs in every worker, because an extra signal changes nothing.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from '@temporalio/client';
import type { Database } from '../platform/database';
import type { Logger } from '../platform/logger';
import { endExpiredModes, findLeftMessages, findResumable, raiseLongWaits } from '../record/silent-conversations';
import { requestLook, requestLookIfRunning, requestSend } from './conversation-signals';

/** Interval between looks: how late a deadline is noticed, at most. */
const LOOK_MS = 2_000;
/** Messages that were left behind are looked for at every fifteenth look, because finding them costs more. */
const LOOKS_PER_SEARCH = 15;
/** A workflow that does not react is signalled again after this long. */
const TELL_AGAIN_MS = 60_000;

interface Parts {
  db: Database;
  temporal: Client;
  taskQueue: string;
  logger: Logger;
  signal: AbortSignal;
}

/** Looks until `signal` aborts. Failures are logged. */
export async function watchSilentConversations(parts: Parts): Promise<void> {
  const { logger, signal } = parts;
  const told = new Map<string, number>();
  for (let look = 1; !signal.aborted; look += 1) {
    try {
      await tellSilent(parts, told);
      if (look % LOOKS_PER_SEARCH === 0) await sendLeft(parts);
    } catch (error) {
      if (!signal.aborted) logger.warn({ error }, 'silent conversations: trying again');
    }
    await sleep(LOOK_MS, undefined, { signal, ref: false }).catch(() => undefined);
  }
}

async function tellSilent({ db, temporal, taskQueue }: Parts, told: Map<string, number>): Promise<void> {
  for (const [conversationId, atMs] of told) if (Date.now() - atMs > TELL_AGAIN_MS) told.delete(conversationId);
  const changed = [...(await endExpiredModes(db)), ...(await raiseLongWaits(db))];
  for (const { conversationId, workflowId } of await findResumable(db)) {
    if (told.has(conversationId)) continue;
    await requestLook(temporal, taskQueue, workflowId, conversationId);
    told.set(conversationId, Date.now());
  }
  for (const { conversationId, workflowId } of changed)
    if (!told.has(conversationId)) await requestLookIfRunning(temporal, workflowId, conversationId);
}

async function sendLeft({ db, temporal, taskQueue, logger }: Parts): Promise<void> {
  for (const { workflowId, ...request } of await findLeftMessages(db)) {
    logger.warn({ messageId: request.messageId }, 'a message was left in the outbox; asking its conversation to send it');
    await requestSend(temporal, taskQueue, workflowId, request);
  }
}
