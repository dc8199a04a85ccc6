/**
 * Works off parked messages whose number has got a workspace: they are handed over again, the same way as a webhook's. While a
 * conversation still waits it sees the workspace by itself; this is for those whose workflow has ended.
 */
import { findReleasableMessages } from '../record/parked-messages';
import { type HandOverDependencies, handOver } from './hand-over';

/** A conversation that waits looks for its workspace once a minute. */
const LEFT_ALONE_MS = 2 * 60_000;
const BATCH = 100;

/**
 * Hands over a batch, oldest first; what was recorded before is dropped there. Returns how many messages there were.
 * @throws NotStoredError when Temporal does not take one of them, or what the database throws
 */
export async function releaseParkedMessages(dependencies: HandOverDependencies, ageMs = LEFT_ALONE_MS): Promise<number> {
  const parked = await findReleasableMessages(dependencies.db, { ageMs, limit: BATCH });
  if (parked.length === 0) return 0;
  const messages = parked.map((message) => ({ type: 'message' as const, ...message }));
  await handOver({ messages, statuses: [], letters: [] }, dependencies);
  dependencies.logger.info({ messages: parked.length }, 'parked messages were handed over to their conversations');
  return parked.length;
}
