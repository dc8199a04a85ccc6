/** Waits until a conversation needs a person. */
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import {
  findNewestReasons,
  findQueue,
  hasMatch,
  type NewestReason,
  type QueuedConversation,
  type QueueFilter,
} from '../record/attention-queue';
import type { CallWaiters } from './call-waiters';
import { createSharedPoll } from './shared-poll';

/** Maximum delay of a reason for attention, in milliseconds. */
const LOOK_EVERY_MS = 1_000;

/** All waiting requests read the same rows. */
const EVERYBODY = 'everybody';

export interface AttentionQueue {
  /**
   * The conversations that wait, once there are any, or after `waitMs`.
   * @throws DatabaseAwayError
   */
  read(filter: QueueFilter, limit: number, waitMs: number, left: AbortSignal): Promise<QueuedConversation[]>;
}

/** One per process. */
export function createAttentionQueue(parts: { db: Database; waiters: Pick<CallWaiters, 'rest'>; logger: Logger }): AttentionQueue {
  const { db } = parts;
  const read = async () => new Map([[EVERYBODY, await findNewestReasons(db)]]);
  const reasons = createSharedPoll<NewestReason[]>({ ...parts, read, everyMs: LOOK_EVERY_MS });
  return {
    async read(filter, limit, waitMs, left) {
      const found = await fromRecord(findQueue(db, filter, limit));
      if (found.length > 0 || waitMs === 0) return found;
      await reasons.wait(EVERYBODY, (newest) => hasMatch(newest, filter), waitMs, left);
      return left.aborted ? [] : await fromRecord(findQueue(db, filter, limit));
    },
  };
}
