/** Sending through Kapso, over the outbox row: at most one send per claim, and no claim after an unknown outcome. */

import { Context } from '@temporalio/activity';
import type { Database } from '../src/platform/database';
import type { Logger } from '../src/platform/logger';
import type { WorkerMetrics } from '../src/platform/metrics';
import type { KapsoClient, ListedMessage, SendAnswer } from '../src/providers/kapso/client';
import { judgeSend } from '../src/providers/kapso/send-verdict';
import {
  claimReply,
  endClaim,
  endForeignClaim,
  findOtherReplies,
  findSentReply,
  joinEarlyReports,
  raiseReply,
  releaseReply,
  type SentReply,
} from '../src/record/replies';
import type { SendVerdict } from '../workflows/contract';

/** Bound of one send with its answer. Longer, and the outcome is unknown. */
export const SEND_TIMEOUT_MS = 8_000;

export interface WhatsAppActivities {
  /** Sends the reply if nobody has claimed it. `isLast`: a refusal that would pass is final now. Fails only when the database is away. */
  sendReply(order: { messageId: string; isLast: boolean }): Promise<SendVerdict>;
  /** Looks an unconfirmed reply up at Kapso. `isLast`: found nowhere means not delivered. Fails when Kapso cannot be asked. */
  lookUpSend(order: { messageId: string; isLast: boolean }): Promise<SendVerdict>;
}

/** Clocks of Kapso and ours may differ by this much when a listed message is looked for. */
const CLOCK_SKEW_MS = 60_000;

interface WhatsAppDependencies {
  db: Database;
  kapso: KapsoClient;
  logger: Logger;
  metrics: Pick<WorkerMetrics, 'sendTried'>;
}

/** The send and look-up activities of one Kapso project. */
export function createWhatsAppActivities({ db, kapso, logger, metrics }: WhatsAppDependencies): WhatsAppActivities {
  return {
    async sendReply({ messageId, isLast }) {
      const claimed = await claimReply(db, messageId);
      if (!claimed) return await endForeignClaim(db, messageId);
      const answer = await kapso.sendText({
        phoneNumberId: claimed.phoneNumberId,
        recipient: { phone: claimed.phone ?? undefined, businessScopedUserId: claimed.businessScopedUserId ?? undefined },
        text: claimed.text,
        correlationId: messageId,
      });
      const verdict = judgeSend(answer, claimed, isLast);
      metrics.sendTried(verdict.status);
      await writeVerdict(db, messageId, claimed.phoneNumberId, answer, verdict);
      logger.info(
        { workflowId: Context.current().info.workflowExecution?.workflowId, messageId, sendAttempt: claimed.sendAttempts, ...verdict },
        'reply send',
      );
      return verdict;
    },

    async lookUpSend({ messageId, isLast }) {
      const now = await endForeignClaim(db, messageId);
      if (now.status !== 'unconfirmed') return now;
      const reply = await findSentReply(db, messageId);
      const listed = await kapso.listSent({
        phoneNumberId: reply.phoneNumberId,
        sinceMs: reply.draftedAtMs - CLOCK_SKEW_MS,
        untilMs: reply.claimedAtMs + SEND_TIMEOUT_MS + CLOCK_SKEW_MS,
      });
      const known = await findOtherReplies(
        db,
        listed.map((message) => message.providerMessageId),
        messageId,
      );
      const unknown = listed.filter((candidate) => !known.has(candidate.providerMessageId));
      const found =
        unknown.find((candidate) => candidate.correlationIds.includes(messageId)) ??
        unknown.find((candidate) => looksTheSame(candidate, reply));
      if (found) {
        await confirm(db, messageId, reply.phoneNumberId, found);
        return await endForeignClaim(db, messageId);
      }
      return isLast ? await releaseReply(db, messageId) : { status: 'unconfirmed' };
    },
  };
}

/** Writes what was learned to the row; a row that a status webhook has raised meanwhile stays as high as it is. */
async function writeVerdict(
  db: Database,
  messageId: string,
  phoneNumberId: string,
  answer: SendAnswer,
  verdict: SendVerdict,
): Promise<void> {
  switch (verdict.status) {
    case 'sent': {
      const providerMessageId = answer.kind === 'accepted' ? answer.providerMessageId : '';
      await raiseReply(db, { messageId }, { status: 'sent', phoneNumberId, providerMessageId });
      await joinEarlyReports(db, { providerMessageId, phoneNumberId });
      return;
    }
    case 'failed':
      await raiseReply(db, { messageId }, { status: 'failed', phoneNumberId, failure: verdict.reason, onlyWhileSending: true });
      return;
    case 'unconfirmed':
    case 'pending':
      await endClaim(db, messageId, verdict.status);
  }
}

/** The fallback where Kapso shows no id of ours: the same text to the same person since the draft was made. */
function looksTheSame(listed: ListedMessage, reply: SentReply): boolean {
  if (listed.correlationIds.length > 0 || !listed.to || listed.to !== reply.phone) return false;
  return listed.text === reply.text && listed.sentAtMs >= reply.draftedAtMs - CLOCK_SKEW_MS;
}

async function confirm(db: Database, messageId: string, phoneNumberId: string, found: ListedMessage): Promise<void> {
  const known = ['failed', 'read', 'delivered', 'sent'] as const;
  const status = known.find((candidate) => found.statuses.some((entry) => entry.status === candidate)) ?? 'sent';
  await raiseReply(db, { messageId }, { status, phoneNumberId, providerMessageId: found.providerMessageId });
  await joinEarlyReports(db, { providerMessageId: found.providerMessageId, phoneNumberId });
}
