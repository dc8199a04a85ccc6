/** Sends replies through Kapso by way of the outbox row: at most one send per claim, and no claim after an unknown outcome. */
import { Context } from '@temporalio/activity';
import type { BackgroundWork } from '../src/platform/background';
import { type ClaimFence, startFence } from '../src/platform/claim-fence';
import { SANDBOX_PHONE_NUMBER_ID } from '../src/platform/config';
import type { Database } from '../src/platform/database';
import type { Logger } from '../src/platform/logger';
import type { WorkerMetrics } from '../src/platform/metrics';
import { phoneMatchingKey } from '../src/platform/phone';
import type { ListedMessage, SendAnswer } from '../src/providers/kapso/client';
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
import type { ServicesByWorkspace, WorkspaceServices } from './services';

/** Timeout of a send, including the response. After it, the outcome is unknown. */
export const SEND_TIMEOUT_MS = 8_000;

/** An older claim must not send: it may have been settled while this process was paused. */
const MAX_CLAIM_AGE_MS = 3_000;

/** How long a claim may be in progress: the timeout of the send, and time to write its result. */
const CLAIM_MS = SEND_TIMEOUT_MS + 2_000;

export interface WhatsAppActivities {
  /**
   * Sends the reply if nobody has claimed it. `isLast`: a temporary rejection is now final. `waitMs`: after this many milliseconds without
   * a response, returns `under_way`, and the row will have the result; without it, waits for the response. Fails only if the database is
   * unavailable or rejects a statement.
   */
  sendReply(order: { messageId: string; isLast: boolean; waitMs?: number }): Promise<SendProgress>;
  /** The state of a send that was `under_way`, from its row. */
  checkSend(order: { messageId: string }): Promise<SendProgress>;
  /**
   * Looks up an unconfirmed reply in Kapso's list. `isLast`: if it is not listed, it was not delivered. `isLate`: in that case it fails,
   * because it is too late to send it again. Fails if Kapso is unreachable.
   */
  lookUpSend(order: { messageId: string; isLast: boolean; isLate?: boolean }): Promise<SendVerdict>;
}

/** Tolerance for the difference between Kapso's clock and ours in a look-up. */
const CLOCK_SKEW_MS = 60_000;

interface WhatsAppDependencies {
  db: Database;
  services: ServicesByWorkspace<Pick<WorkspaceServices, 'kapso' | 'isReal'>>;
  logger: Logger;
  metrics: Pick<WorkerMetrics, 'sendTried'>;
  background: BackgroundWork;
}

/** A claimed reply, with the fence that says whether the claim is still valid. */
interface FencedSend {
  messageId: string;
  claimed: ClaimedReply;
  isLast: boolean;
  fence: ClaimFence;
}

/** The send and look-up activities. */
export function createWhatsAppActivities({ db, services, logger, metrics, background }: WhatsAppDependencies): WhatsAppActivities {
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
      // Read before the status: what the list proves, it proves for this claim only.
      const reply = await findSentReply(db, messageId);
      const now = await endForeignClaim(db, messageId);
      if (isLate && now.status === 'pending') return await failLate(messageId, reply);
      if (now.status !== 'unconfirmed') return now;
      const { kapso } = await services.ofNumber(reply.phoneNumberId);
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
      // The list proves that the reply was not delivered only if no unreadable row could be this reply.
      if (!isLast || unreadable.some((row) => mayBeOurs(row, messageId, reply))) return { status: 'unconfirmed' };
      return isLate ? await failLate(messageId, reply) : await releaseReply(db, { messageId, sendAttempts: reply.sendAttempts });
    },
  };

  /** Nobody sends it any more: its conversation has gone on. */
  async function failLate(messageId: string, { phoneNumberId }: SentReply): Promise<SendVerdict> {
    await failLateReply(db, { messageId, phoneNumberId });
    return await endForeignClaim(db, messageId);
  }

  /** Sends the request, and writes the result to the row. */
  async function send({ messageId, claimed, isLast, fence }: FencedSend, log: Logger): Promise<SendVerdict> {
    const { kapso, isReal } = await services.ofNumber(claimed.phoneNumberId);
    if (isReal && isSimulated(claimed)) return await refuseSimulated(messageId, claimed, log);
    const answer = await kapso.sendText({
      phoneNumberId: claimed.phoneNumberId,
      recipient: { phone: claimed.phone ?? undefined, businessScopedUserId: claimed.businessScopedUserId ?? undefined },
      text: claimed.text,
      quotedId: claimed.quotedProviderId ?? undefined,
      correlationId: messageId,
      beforeSending: () => fence.check(),
    });
    const verdict = judgeSend(answer, claimed, isLast);
    metrics.sendTried(verdict.status);
    await writeVerdict(messageId, claimed, answer, verdict);
    log.info(verdict, 'reply send');
    return verdict;
  }

  /** Refuses a reply from the sandbox that was still unsent when the real Kapso replaced it. */
  async function refuseSimulated(messageId: string, { phoneNumberId, sendAttempts }: ClaimedReply, log: Logger): Promise<SendVerdict> {
    const verdict = { status: 'failed', reason: 'WhatsAppSendError.Simulated' } as const;
    await raiseReply(db, { messageId }, { status: 'failed', phoneNumberId, failure: verdict.reason, claim: sendAttempts });
    log.warn(verdict, 'a simulated reply was not sent to a real person');
    return verdict;
  }

  /** The verdict, or `under_way` after `waitMs`; the send then continues in the background and writes its result to the row. */
  async function firstOf(sending: Promise<SendVerdict>, waitMs: number): Promise<SendProgress> {
    let timer: NodeJS.Timeout | undefined;
    const tooSlow = new Promise<SendProgress>((resolve) => {
      timer = setTimeout(() => resolve({ status: 'under_way' }), waitMs);
    });
    const verdict = await Promise.race([sending, tooSlow]).finally(() => clearTimeout(timer));
    if (verdict.status === 'under_way') {
      const failed = (error: unknown) => logger.warn({ error }, 'writing the result of a send failed; its outcome counts as unknown');
      background.track(sending.then(() => undefined, failed));
    }
    return verdict;
  }

  /** Ignores rows that belong to other replies: one with the same text must not be mistaken for this one. */
  async function findListed(listed: ListedMessage[], messageId: string, reply: SentReply): Promise<ListedMessage | undefined> {
    const ids = listed.map(({ providerMessageId }) => providerMessageId);
    const known = await findOtherReplies(db, ids, messageId);
    const unknown = listed.filter(({ providerMessageId }) => !known.has(providerMessageId));
    return (
      unknown.find(({ correlationIds }) => correlationIds.includes(messageId)) ??
      unknown.find((candidate) => looksTheSame(candidate, reply))
    );
  }

  /** Writes the verdict to the row. If a status webhook has already raised the row, it is not lowered. */
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

/** Whether the reply comes from the sandbox: its model wrote it, or its number would send it. */
function isSimulated({ provider, phoneNumberId }: ClaimedReply): boolean {
  return provider === 'sandbox' || phoneNumberId === SANDBOX_PHONE_NUMBER_ID;
}

/** Whether an unreadable row of the list could be this reply: it contains our id, or the recipient and the text. */
function mayBeOurs(row: unknown, messageId: string, reply: SentReply): boolean {
  const text = JSON.stringify(row) ?? '';
  if (text.includes(messageId)) return true;
  const recipient = reply.phone ?? reply.businessScopedUserId;
  return recipient !== null && text.includes(recipient) && text.includes(JSON.stringify(reply.text).slice(1, -1));
}

/** The fallback if Kapso lists no id of ours: the same text to the same recipient since the draft was stored. */
function looksTheSame(listed: ListedMessage, reply: SentReply): boolean {
  if (listed.correlationIds.length > 0 || !listed.to || reply.phone === null) return false;
  if (phoneMatchingKey(listed.to) !== phoneMatchingKey(reply.phone)) return false;
  return listed.text === reply.text && listed.sentAtMs >= reply.draftedAtMs - CLOCK_SKEW_MS;
}

async function confirm(db: Database, messageId: string, phoneNumberId: string, found: ListedMessage): Promise<void> {
  const known = ['failed', 'read', 'delivered', 'sent'] as const;
  const status = known.find((candidate) => found.statuses.some((entry) => entry.status === candidate)) ?? 'sent';
  await raiseReply(db, { messageId }, { status, phoneNumberId, providerMessageId: found.providerMessageId });
  await joinEarlyReports(db, { providerMessageId: found.providerMessageId, phoneNumberId });
}
