/** Sending through Kapso, over the outbox row: at most one send per claim, and no claim after an unknown outcome. */

import { Context } from '@temporalio/activity';
import type { BackgroundWork } from '../src/platform/background';
import { type ClaimFence, startFence } from '../src/platform/claim-fence';
import type { Database } from '../src/platform/database';
import type { Logger } from '../src/platform/logger';
import type { WorkerMetrics } from '../src/platform/metrics';
import type { KapsoClient, ListedMessage, SendAnswer } from '../src/providers/kapso/client';
import { judgeSend } from '../src/providers/kapso/send-verdict';
import {
  type ClaimedReply,
  checkClaim,
  claimReply,
  endClaim,
  endForeignClaim,
  failLateReply,
  findOtherReplies,
  findSentReply,
  joinEarlyReports,
  raiseReply,
  releaseReply,
  type SentReply,
} from '../src/record/replies';
import type { SendProgress, SendVerdict } from '../workflows/contract';

/** Bound of one send with its answer. Longer, and the outcome is unknown. */
export const SEND_TIMEOUT_MS = 8_000;

/** A claim that is older may not send any more: others may have settled it while this process was paused. */
const MAX_CLAIM_AGE_MS = 3_000;

/** A claim whose request is still under way: its bound, and time to write what came of it. */
const CLAIM_MS = SEND_TIMEOUT_MS + 2_000;

export interface WhatsAppActivities {
  /**
   * Sends the reply if nobody has claimed it. `isLast`: a refusal that would pass is final now. `waitMs`: an answer that takes longer
   * than this many milliseconds is left to the row (`under_way`); without it, the answer is waited for. Fails only when the database
   * is away or refuses.
   */
  sendReply(order: { messageId: string; isLast: boolean; waitMs?: number }): Promise<SendProgress>;
  /** What the row says of a send that was `under_way`. */
  checkSend(order: { messageId: string }): Promise<SendProgress>;
  /**
   * Looks an unconfirmed reply up at Kapso. `isLast`: found nowhere means not delivered. `isLate`: and then the reply has failed, because
   * it is too late to send it again. Fails when Kapso cannot be asked.
   */
  lookUpSend(order: { messageId: string; isLast: boolean; isLate?: boolean }): Promise<SendVerdict>;
}

/** Clocks of Kapso and ours may differ by this much when a listed message is looked for. */
const CLOCK_SKEW_MS = 60_000;

interface WhatsAppDependencies {
  db: Database;
  kapso: KapsoClient;
  logger: Logger;
  metrics: Pick<WorkerMetrics, 'sendTried'>;
  background: BackgroundWork;
}

/** A claimed reply, and what says whether the claim still allows to send it. */
interface FencedSend {
  messageId: string;
  claimed: ClaimedReply;
  isLast: boolean;
  fence: ClaimFence;
}

/** The send and look-up activities of one Kapso project. */
export function createWhatsAppActivities({ db, kapso, logger, metrics, background }: WhatsAppDependencies): WhatsAppActivities {
  return {
    async sendReply({ messageId, isLast, waitMs }) {
      const { info, cancellationSignal } = Context.current();
      const fence = startFence({ maxAgeMs: MAX_CLAIM_AGE_MS, signal: cancellationSignal });
      const claimed = await claimReply(db, messageId);
      if (!claimed) return await endForeignClaim(db, messageId);
      const workflowId = info.workflowExecution?.workflowId;
      const sending = send(
        { messageId, claimed, isLast, fence },
        logger.child({ workflowId, messageId, sendAttempt: claimed.sendAttempts }),
      );
      return waitMs === undefined ? await sending : await firstOf(sending, waitMs);
    },

    async checkSend({ messageId }) {
      return await checkClaim(db, messageId, CLAIM_MS);
    },

    async lookUpSend({ messageId, isLast, isLate }) {
      const now = await endForeignClaim(db, messageId);
      if (now.status !== 'unconfirmed') return now;
      const reply = await findSentReply(db, messageId);
      const { messages, unreadable } = await kapso.listSent({
        phoneNumberId: reply.phoneNumberId,
        sinceMs: reply.draftedAtMs - CLOCK_SKEW_MS,
        untilMs: reply.claimedAtMs + SEND_TIMEOUT_MS + CLOCK_SKEW_MS,
      });
      const found = await findListed(messages, messageId, reply);
      if (found) {
        await confirm(db, messageId, reply.phoneNumberId, found);
        return await endForeignClaim(db, messageId);
      }
      // Only a list that may not hold the reply proves that it did not go out.
      if (!isLast || unreadable.some((row) => mayBeOurs(row, messageId, reply))) return { status: 'unconfirmed' };
      if (!isLate) return await releaseReply(db, messageId);
      await failLateReply(db, { messageId, phoneNumberId: reply.phoneNumberId });
      return await endForeignClaim(db, messageId);
    },
  };

  /** The request, and what came of it in the row. */
  async function send({ messageId, claimed, isLast, fence }: FencedSend, log: Logger): Promise<SendVerdict> {
    const answer = await kapso.sendText({
      phoneNumberId: claimed.phoneNumberId,
      recipient: { phone: claimed.phone ?? undefined, businessScopedUserId: claimed.businessScopedUserId ?? undefined },
      text: claimed.text,
      correlationId: messageId,
      beforeSending: () => fence.check(),
    });
    const verdict = judgeSend(answer, claimed, isLast);
    metrics.sendTried(verdict.status);
    await writeVerdict(messageId, claimed, answer, verdict);
    log.info(verdict, 'reply send');
    return verdict;
  }

  /** The verdict, or `under_way` after `waitMs`: then the send goes on, and the row will tell. */
  async function firstOf(sending: Promise<SendVerdict>, waitMs: number): Promise<SendProgress> {
    let timer: NodeJS.Timeout | undefined;
    const tooSlow = new Promise<SendProgress>((resolve) => {
      timer = setTimeout(() => resolve({ status: 'under_way' }), waitMs);
    });
    const verdict = await Promise.race([sending, tooSlow]).finally(() => clearTimeout(timer));
    if (verdict.status === 'under_way') {
      const failed = (error: unknown) => logger.warn({ error }, 'what came of a send could not be written; it counts as unknown');
      background.track(sending.then(() => undefined, failed));
    }
    return verdict;
  }

  /** Ids that belong to other replies already are left out: one with the same words must not be taken for this one. */
  async function findListed(listed: ListedMessage[], messageId: string, reply: SentReply): Promise<ListedMessage | undefined> {
    const ids = listed.map(({ providerMessageId }) => providerMessageId);
    const known = await findOtherReplies(db, ids, messageId);
    const unknown = listed.filter(({ providerMessageId }) => !known.has(providerMessageId));
    return (
      unknown.find(({ correlationIds }) => correlationIds.includes(messageId)) ??
      unknown.find((candidate) => looksTheSame(candidate, reply))
    );
  }

  /** Writes what was learned to the row; a row that a status webhook has raised meanwhile stays as high as it is. */
  async function writeVerdict(
    messageId: string,
    { phoneNumberId, sendAttempts }: ClaimedReply,
    answer: SendAnswer,
    verdict: SendVerdict,
  ): Promise<void> {
    switch (verdict.status) {
      case 'sent': {
        const providerMessageId = answer.kind === 'accepted' ? answer.providerMessageId : '';
        const raised = await raiseReply(db, { messageId }, { status: 'sent', phoneNumberId, providerMessageId });
        await joinEarlyReports(db, { providerMessageId, phoneNumberId });
        if (raised) verdict.needsAttention = raised.needsAttention;
        return;
      }
      case 'failed':
        await raiseReply(db, { messageId }, { status: 'failed', phoneNumberId, failure: verdict.reason, claim: sendAttempts });
        return;
      case 'unconfirmed':
      case 'pending':
        await endClaim(db, { messageId, sendAttempts, status: verdict.status });
    }
  }
}

/** Whether a row of the list that could not be read may be this reply: it names our id, or the person and the words. */
function mayBeOurs(row: unknown, messageId: string, reply: SentReply): boolean {
  const text = JSON.stringify(row) ?? '';
  if (text.includes(messageId)) return true;
  const recipient = reply.phone ?? reply.businessScopedUserId;
  return recipient !== null && text.includes(recipient) && text.includes(JSON.stringify(reply.text).slice(1, -1));
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
