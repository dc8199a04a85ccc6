/**
 * Releases parked messages whose number now belongs to a workspace: they are handed over again, as if from a webhook. A conversation
 * that is still waiting notices the workspace by itself; this is for those whose workflow has ended.
 */
import { findReleasableMessages, markReleased } from '../record/parked-messages';
import { type HandOverDependencies, handOver } from './hand-over';

/** Younger messages are left to their conversation, which checks for its workspace once a minute. */
const LEFT_ALONE_MS = 2 * 60_000;
const BATCH = 100;

/**
 * Hands over a batch, oldest first; the conversation drops duplicates. Returns the number of messages.
 * @throws NotStoredError if Temporal does not accept one of them, or the database's error
 */
export async function releaseParkedMessages(dependencies: HandOverDependencies, ageMs = LEFT_ALONE_MS): Promise<number> {
  const parked = await findReleasableMessages(dependencies.db, { ageMs, limit: BATCH });
  if (parked.length === 0) return 0;
  const messages = parked.map(({ phoneNumberId, contact, message }) => ({ type: 'message' as const, phoneNumberId, contact, message }));
  await handOver({ messages, statuses: [], letters: [] }, dependencies);
  await markReleased(
    dependencies.db,
    parked.map(({ parkedId }) => parkedId),
  );
  dependencies.logger.info({ messages: parked.length }, 'parked messages handed over to their conversations');
  return parked.length;
}
