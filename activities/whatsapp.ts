/** Sending through Kapso, over the outbox row: at most one send per claim, and no claim after an unknown outcome. */

import { Context } from '@temporalio/activity';
import { type Database, sql } from '../src/platform/database';
import type { Logger } from '../src/platform/logger';
import type { WorkerMetrics } from '../src/platform/metrics';
import type { KapsoClient, ListedMessage, SendAnswer } from '../src/providers/kapso/client';
import { joinEarlyReports, raiseReply } from '../src/record/replies';

/** Bound of one send with its answer. Longer, and the outcome is unknown. */
export const SEND_TIMEOUT_MS = 8_000;

/** Where a reply stands after a step of the outbox. `pending` means that it is certain that nothing went out. */
export type SendVerdict =
  | { status: 'sent' }
  | { status: 'unconfirmed' }
  | { status: 'pending'; retryAfterMs: number; reason: string }
  | { status: 'failed'; reason: string };

export interface WhatsAppActivities {
  /** Sends the reply if nobody has claimed it. `isLast`: a refusal that would pass is final now. Fails only when the database is away. */
  sendReply(order: { messageId: string; isLast: boolean }): Promise<SendVerdict>;
  /** Looks an unconfirmed reply up at Kapso. `isLast`: found nowhere means not delivered. Fails when Kapso cannot be asked. */
  lookUpSend(order: { messageId: string; isLast: boolean }): Promise<SendVerdict>;
}

interface ClaimedReply {
  text: string;
  phone: string | null;
  businessScopedUserId: string | null;
  phoneNumberId: string;
  sendAttempts: number;
  lastInboundAgeMs: number;
}

/** Kapso throttles by the minute (429 without a header). */
const KAPSO_RATE_WINDOW_MS = 60_000;
/** Another send of the conversation is in flight: Kapso asks for 1 to 3 seconds. */
const IN_FLIGHT_MS = 2_000;
/** The window state at Kapso can lag behind a message that has just come in. */
const WINDOW_LAG_MS = 3_000;
const WINDOW_LAG_TRIES = 3;
const DAY_MS = 24 * 60 * 60_000;

/** Clocks of Kapso and ours may differ by this much when a listed message is looked for. */
const CLOCK_SKEW_MS = 60_000;

/** Graph codes that refuse for now: throughput (130429, 4, 80007) and one recipient too often (131056). */
const THROTTLED = new Set([130429, 4, 80007]);
const PAIR_THROTTLED = 131056;
/** Graph codes after which Meta may have sent all the same: a second send could show twice. */
const AMBIGUOUS = new Set([1, 2, 131000, 131016, 131057, 133004]);
const WINDOW_CLOSED = 131047;

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
      const claimed = await claim(db, messageId);
      if (!claimed) return await standing(db, messageId);
      const answer = await kapso.sendText({
        phoneNumberId: claimed.phoneNumberId,
        recipient: { phone: claimed.phone ?? undefined, businessScopedUserId: claimed.businessScopedUserId ?? undefined },
        text: claimed.text,
        correlationId: messageId,
      });
      const verdict = judge(answer, claimed, isLast);
      metrics.sendTried(verdict.status);
      await keep(db, messageId, claimed.phoneNumberId, answer, verdict);
      logger.info(
        { workflowId: Context.current().info.workflowExecution?.workflowId, messageId, sendAttempt: claimed.sendAttempts, ...verdict },
        'reply send',
      );
      return verdict;
    },

    async lookUpSend({ messageId, isLast }) {
      const now = await standing(db, messageId);
      if (now.status !== 'unconfirmed') return now;
      const reply = await sentReply(db, messageId);
      const listed = await kapso.listSent({
        phoneNumberId: reply.phoneNumberId,
        sinceMs: reply.draftedAtMs - CLOCK_SKEW_MS,
        untilMs: reply.claimedAtMs + SEND_TIMEOUT_MS + CLOCK_SKEW_MS,
      });
      const known = await knownIds(db, listed, messageId);
      const unknown = listed.filter((candidate) => !known.has(candidate.providerMessageId));
      const found =
        unknown.find((candidate) => candidate.correlationIds.includes(messageId)) ??
        unknown.find((candidate) => looksTheSame(candidate, reply));
      if (found) {
        await confirm(db, messageId, reply.phoneNumberId, found);
        return await standing(db, messageId);
      }
      return isLast ? await release(db, messageId) : { status: 'unconfirmed' };
    },
  };
}

/** One atomic UPDATE: whoever gets the row sends; everybody else gets nothing. */
async function claim(db: Database, messageId: string): Promise<ClaimedReply | undefined> {
  const rows = await db.query<ClaimedReply>(sql`
    UPDATE messages m SET status = 'sending', claimed_at = now(), send_attempts = m.send_attempts + 1
    FROM conversations c, contacts p, workspaces w
    WHERE m.id = ${messageId}::uuid AND m.status = 'pending'
      AND c.id = m.conversation_id AND p.id = c.contact_id AND w.id = m.workspace_id
    RETURNING m.text, p.phone, p.business_scoped_user_id AS "businessScopedUserId", w.kapso_phone_number_id AS "phoneNumberId",
      m.send_attempts AS "sendAttempts",
      (extract(epoch FROM now() - (SELECT i.created_at FROM messages i WHERE i.id = m.reply_to_id)) * 1000)::float8 AS "lastInboundAgeMs"`);
  return rows[0];
}

/**
 * What the row says. A row in `sending` that we did not claim was left by a worker that died or hangs:
 * its outcome is unknown.
 */
async function standing(db: Database, messageId: string): Promise<SendVerdict> {
  const rows = await db.query<{ status: string; failure: string | null }>(sql`
    UPDATE messages SET status = CASE WHEN status = 'sending' THEN 'unconfirmed'::message_status ELSE status END
    WHERE id = ${messageId}::uuid RETURNING status::text, failure`);
  const row = rows[0];
  switch (row?.status) {
    case 'sent':
    case 'delivered':
    case 'read':
      return { status: 'sent' };
    case 'pending':
      return { status: 'pending', retryAfterMs: 0, reason: 'not delivered' };
    case 'failed':
      return { status: 'failed', reason: row.failure ?? 'unknown' };
    case undefined:
      return { status: 'failed', reason: 'the reply is not in the record' };
    default:
      return { status: 'unconfirmed' };
  }
}

/** Turns Kapso's answer into what to do next (Meta's error codes and Kapso's own errors; first match wins). */
function judge(answer: SendAnswer, { sendAttempts, lastInboundAgeMs }: ClaimedReply, isLast: boolean): SendVerdict {
  const again = (retryAfterMs: number, reason: string): SendVerdict =>
    isLast ? { status: 'failed', reason: `${reason}, for too long` } : { status: 'pending', retryAfterMs, reason };
  const backoffMs = Math.min(60_000, 1_000 * 2 ** Math.min(sendAttempts - 1, 6));
  // Never shorter than our own pause: a provider that says "at once" each time would be asked without end.
  const throttled = (waitMs: number, reason: string) => again(Math.max(waitMs, backoffMs), reason);
  switch (answer.kind) {
    case 'accepted':
      return { status: 'sent' };
    case 'unknown':
      return { status: 'unconfirmed' };
    case 'not_sent':
      return again(backoffMs, `unreachable ${answer.code}`);
    case 'refused':
      break;
  }
  const { httpStatus, graphCode, kapsoError, retryAfterMs } = answer;
  if (graphCode !== undefined && AMBIGUOUS.has(graphCode)) return { status: 'unconfirmed' };
  if (graphCode !== undefined && THROTTLED.has(graphCode)) return throttled(retryAfterMs ?? backoffMs, `throttled ${graphCode}`);
  if (graphCode === PAIR_THROTTLED) return throttled(retryAfterMs ?? 4 ** Math.min(sendAttempts, 5) * 1_000, `throttled ${graphCode}`);
  if (graphCode === WINDOW_CLOSED) return { status: 'failed', reason: 'WhatsAppSendError.WindowClosed' };
  if (graphCode !== undefined) return { status: 'failed', reason: `WhatsAppSendError.Refused ${graphCode}` };
  if (httpStatus === 429) return throttled(retryAfterMs ?? KAPSO_RATE_WINDOW_MS, 'throttled by Kapso');
  if (httpStatus === 409) return throttled(retryAfterMs ?? IN_FLIGHT_MS, 'another send is in flight');
  if (httpStatus === 422 && /24-hour window/i.test(kapsoError ?? '')) {
    const mayLag = lastInboundAgeMs < DAY_MS && sendAttempts < WINDOW_LAG_TRIES;
    return mayLag ? again(WINDOW_LAG_MS, 'the window may lag behind') : { status: 'failed', reason: 'WhatsAppSendError.WindowClosed' };
  }
  if (httpStatus === 401 || httpStatus === 403) return { status: 'failed', reason: 'WhatsAppSendError.Unauthorized' };
  if (httpStatus === 402) return { status: 'failed', reason: 'WhatsAppSendError.Plan' };
  if (httpStatus === 404) return { status: 'failed', reason: 'WhatsAppSendError.UnknownNumber' };
  return { status: 'failed', reason: `WhatsAppSendError.Refused http ${httpStatus}` };
}

/** Writes what was learned to the row; a row that a status webhook has raised meanwhile stays as high as it is. */
async function keep(db: Database, messageId: string, phoneNumberId: string, answer: SendAnswer, verdict: SendVerdict): Promise<void> {
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
      await db.query(sql`
        UPDATE messages SET status = ${verdict.status}::message_status WHERE id = ${messageId}::uuid AND status = 'sending'`);
  }
}

interface SentReply {
  phoneNumberId: string;
  draftedAtMs: number;
  claimedAtMs: number;
  text: string;
  phone: string | null;
}

async function sentReply(db: Database, messageId: string): Promise<SentReply> {
  const rows = await db.query<SentReply>(sql`
    SELECT w.kapso_phone_number_id AS "phoneNumberId", (extract(epoch FROM m.claimed_at) * 1000)::float8 AS "claimedAtMs",
      (extract(epoch FROM m.created_at) * 1000)::float8 AS "draftedAtMs", m.text, p.phone
    FROM messages m JOIN workspaces w ON w.id = m.workspace_id
    JOIN conversations c ON c.id = m.conversation_id JOIN contacts p ON p.id = c.contact_id
    WHERE m.id = ${messageId}::uuid`);
  const reply = rows[0];
  if (!reply) throw new Error(`message ${messageId} is not in the record`);
  return reply;
}

/** Ids that belong to other rows already: a reply with the same words must not be taken for this one. */
async function knownIds(db: Database, listed: ListedMessage[], messageId: string): Promise<Set<string>> {
  const ids = listed.map((message) => message.providerMessageId);
  const rows = await db.query<{ id: string }>(sql`
    SELECT provider_message_id AS id FROM messages WHERE provider_message_id = ANY(${ids}) AND id <> ${messageId}::uuid`);
  return new Set(rows.map((row) => row.id));
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

/** Proven not delivered: the row may be claimed again. */
async function release(db: Database, messageId: string): Promise<SendVerdict> {
  await db.query(sql`UPDATE messages SET status = 'pending' WHERE id = ${messageId}::uuid AND status = 'unconfirmed'`);
  return await standing(db, messageId);
}
