/**
 * Works off parked messages whose number has got a workspace: they are signalled to their conversations again, the same way as a
 * webhook's. While a conversation still waits it sees the workspace by itself; this is for those whose workflow has ended.
 */
import { CONVERSATION_WORKFLOW, conversationStart, messagesReceived } from '../../workflows/contract';
import { findReleasableMessages, type ReleasableMessage } from '../record/parked-messages';
import type { HandOverDependencies } from './hand-over';

/** A conversation that waits looks for its workspace once a minute. */
const LEFT_ALONE_MS = 2 * 60_000;
const BATCH = 100;

/** Signals a batch, oldest first; what was recorded before is dropped there. Returns how many there were. */
export async function releaseParkedMessages(dependencies: HandOverDependencies, ageMs = LEFT_ALONE_MS): Promise<number> {
  const released = await findReleasableMessages(dependencies.db, { ageMs, limit: BATCH });
  for (const parked of released) await signal(parked, dependencies);
  if (released.length > 0) dependencies.logger.info({ messages: released.length }, 'parked messages go to their conversations');
  return released.length;
}

async function signal(
  { phoneNumberId, contact, message }: ReleasableMessage,
  { signaller, taskQueue, identity }: HandOverDependencies,
): Promise<void> {
  const start = conversationStart({ phoneNumberId, contactKey: identity.contactKey(phoneNumberId, contact), taskQueue });
  await signaller.tell({ workflowType: CONVERSATION_WORKFLOW, start, signal: messagesReceived, fact: { contact, messages: [message] } });
}
