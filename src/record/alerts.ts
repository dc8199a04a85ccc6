/**
 * Alerts for operators. An alert is stored where its cause is detected, if possible in the same statement, so that no dying process loses
 * it. Any worker sends it. A cause is reported at most once per hour and channel, with the number of occurrences since the last report.
 */
import type { Prisma } from '../../prisma/generated/client';
import { type Statements, sql } from '../platform/database';
import { maskPhoneNumbers } from '../platform/logger';
import { cutText } from '../platform/text';

/** Contains no phone number and no text of a message. */
export interface NewAlert {
  /** Identifies the cause, which is reported at most once per hour. */
  cause: string;
  /** For people: what has happened, and what to do. */
  text: string;
  /** What it is about, such as `conversation <id>`. */
  subject?: string;
}

const MAX_CAUSE_LENGTH = 200;
const MAX_TEXT_LENGTH = 500;

/** An older claim was left by a process that died. Longer than any channel's timeout. */
export const CLAIM_SECONDS = 60;

/** Minimum interval between two messages about one cause. */
const REPORT_INTERVAL_SECONDS = 60 * 60;

/** An alert that is still unsent this long after it was last raised is dropped. */
const SEND_WITHIN_HOURS = 24;

/** Raises an alert. */
export async function raiseAlert(db: Statements, { cause, text, subject }: NewAlert): Promise<void> {
  await db.query(raisedAlert({ cause, text }, sql`SELECT ${subject ?? null}::text AS subject`));
}

/** The INSERT that raises an alert about the first row of `subjects`, a query with one column `subject`. Without rows, it raises none. */
export function raisedAlert({ cause, text }: Omit<NewAlert, 'subject'>, subjects: Prisma.Sql): Prisma.Sql {
  return sql`
    INSERT INTO alerts AS a (cause, text, subject)
    SELECT ${cutText(cause, MAX_CAUSE_LENGTH)}, ${cutText(maskPhoneNumbers(text), MAX_TEXT_LENGTH)}, s.subject FROM (${subjects}) s LIMIT 1
    ON CONFLICT (cause) DO UPDATE SET text = EXCLUDED.text, subject = EXCLUDED.subject, occurrences = a.occurrences + 1, raised_at = now()`;
}

/** The INSERT for a conversation's reason for attention; `conversationIds` is a query with one column `id`. A wait's text names the wait itself. */
export function attentionAlert({ kind, text }: { kind: string; text: string }, conversationIds: Prisma.Sql): Prisma.Sql {
  const masked = maskPhoneNumbers(text);
  const isAboutModels = kind === 'turn_failed' || kind === 'waiting_for_model';
  const cause = isAboutModels ? modelCause(kind, masked) : causeOf(`${kind}: ${masked}`);
  return raisedAlert(
    { cause, text: kind === 'waiting_for_model' ? text : `${kind.replaceAll('_', ' ')}: ${text}` },
    sql`SELECT 'conversation ' || c.id AS subject FROM (${conversationIds}) c`,
  );
}

/** Failures that last until somebody acts; any other is an outage. */
const LASTING = /no credit|API key|still served|refused the content/;

/**
 * The cause of an alert about models: the providers that `text` names, each with what somebody must fix, or `unavailable`. During an outage
 * a provider fails in many ways, and each combination of them would otherwise be a cause of its own.
 */
export function modelCause(kind: string, text: string): string {
  const states = text.split('; ').flatMap((part) => {
    const [provider] = /[\w-]+ \((?!\d+ attempts)[^)]+\)/.exec(part) ?? [];
    return provider === undefined ? [] : [`${provider} ${LASTING.exec(part)?.[0] ?? 'unavailable'}`];
  });
  return states.length === 0 ? causeOf(`${kind}: ${text}`) : `${kind}: ${states.sort().join(', ')}`;
}

/** The text without ids and numbers of attempts, so that texts about one cause are equal. */
export function causeOf(text: string): string {
  return text.replace(/ ?\(\d+ attempts\)/g, '').replace(/[\w.-]*\d[\w.-]{7,}/g, '#');
}

/** An alert that is to be sent now through a channel. */
export interface ClaimedAlert {
  cause: string;
  text: string;
  subject: string | null;
  /** Occurrences in total. */
  occurrences: number;
  /** Occurrences that were not reported yet. */
  unreported: number;
  /** The same at every attempt, so that a receiver can drop duplicates. */
  messageId: string;
  /** 1 for the first. */
  attempts: number;
}

/** Claims the oldest alert due in a channel, with one statement. Unless settled or postponed, it is due again in `CLAIM_SECONDS`. */
export async function claimAlert(db: Statements, channel: string): Promise<ClaimedAlert | undefined> {
  const rows = await db.query<ClaimedAlert>(sql`
    WITH due AS (
      SELECT a.* FROM alerts a LEFT JOIN alert_deliveries d ON d.cause = a.cause AND d.channel = ${channel}
      WHERE a.occurrences > COALESCE(d.told, 0) AND a.raised_at > now() - ${SEND_WITHIN_HOURS} * interval '1 hour'
        AND (d.not_before IS NULL OR d.not_before <= now())
      ORDER BY a.raised_at LIMIT 1
    ), claimed AS (
      INSERT INTO alert_deliveries AS d (cause, channel, attempts, message_id, not_before)
      SELECT cause, ${channel}, 1, gen_random_uuid(), now() + ${CLAIM_SECONDS} * interval '1 second' FROM due
      ON CONFLICT (cause, channel) DO UPDATE SET attempts = d.attempts + 1, message_id = COALESCE(d.message_id, EXCLUDED.message_id),
        not_before = EXCLUDED.not_before
      WHERE d.not_before <= now()
      RETURNING *
    )
    SELECT due.cause, due.text, due.subject, due.occurrences, due.occurrences - c.told AS unreported, c.message_id AS "messageId", c.attempts
    FROM claimed c JOIN due ON due.cause = c.cause`);
  return rows[0];
}

/** Records that the alert was sent. The next message about its cause follows after an hour, if the cause has occurred again by then. */
export async function settleAlert(db: Statements, channel: string, { cause, messageId, occurrences }: ClaimedAlert): Promise<void> {
  await db.query(sql`
    UPDATE alert_deliveries SET told = ${occurrences}, attempts = 0, message_id = NULL,
      not_before = now() + ${REPORT_INTERVAL_SECONDS} * interval '1 second'
    WHERE cause = ${cause} AND channel = ${channel} AND message_id = ${messageId}::uuid`);
}

/** Records that the alert was not sent; it is due again after `seconds`. */
export async function postponeAlert(db: Statements, channel: string, { cause, messageId }: ClaimedAlert, seconds: number): Promise<void> {
  await db.query(sql`
    UPDATE alert_deliveries SET not_before = now() + ${seconds}::float8 * interval '1 second'
    WHERE cause = ${cause} AND channel = ${channel} AND message_id = ${messageId}::uuid`);
}

/** Records that the alert may have been sent; it is due again after an hour. */
export async function doubtAlert(db: Statements, channel: string, alert: ClaimedAlert): Promise<void> {
  await postponeAlert(db, channel, alert, REPORT_INTERVAL_SECONDS);
}

/** Deletes alerts that were last raised more than `days` ago. */
export async function deleteOldAlerts(db: Statements, days: number): Promise<void> {
  await db.query(sql`DELETE FROM alerts WHERE raised_at < now() - ${days} * interval '1 day'`);
}
