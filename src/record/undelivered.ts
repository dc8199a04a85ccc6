/** Messages that WhatsApp has accepted but not delivered: the phone is off, the customer has blocked the number, or reports do not arrive. */
import { type Database, sql } from '../platform/database';
import { attentionAlert } from './alerts';
import { withoutReasons, withReason } from './attention';
import { newestFirst } from './timeline';

/** How many of a conversation's newest messages tell whether it has an undelivered one. */
const NEWEST_MESSAGES = 50;

/**
 * Requests attention for the conversations with a message that was sent `minutes` ago and is not delivered. Every message is checked
 * once, by whichever process comes first: the installation's row stores the time up to which all have been checked. Messages from before
 * the first check do not count. Returns the ids of the conversations.
 */
export async function reportUndelivered(db: Database, minutes: number): Promise<string[]> {
  const reason = { kind: 'undelivered', text: `a message was sent ${describeMinutes(minutes)} ago, and is still not delivered` } as const;
  const rows = await db.query<{ id: string }>(sql`
    WITH clock AS (
      SELECT id, deliveries_checked_until AS since, now() - ${minutes} * interval '1 minute' AS until FROM installation FOR UPDATE
    ), moved AS (
      UPDATE installation i SET deliveries_checked_until = c.until FROM clock c
      WHERE i.id = c.id AND (c.since IS NULL OR c.since < c.until) RETURNING c.since, c.until
    ), undelivered AS (
      -- OFFSET keeps PostgreSQL from reading the messages of all times.
      SELECT DISTINCT m.conversation_id FROM moved v CROSS JOIN workspaces w CROSS JOIN LATERAL (
        SELECT m.conversation_id FROM messages m
        WHERE m.workspace_id = w.id AND m.occurred_at > v.since AND m.occurred_at <= v.until AND m.status = 'sent'
          AND m.outcome IS DISTINCT FROM 'history' OFFSET 0
      ) m
    ), noted AS (
      UPDATE conversations c SET attention = ${withReason(sql`c.attention`, reason)}, needs_attention = true, updated_at = now()
      FROM undelivered u WHERE c.id = u.conversation_id RETURNING c.id
    ), alerted AS (
      ${attentionAlert(reason, sql`SELECT id FROM noted`)}
    )
    SELECT id FROM noted`);
  return rows.map(({ id }) => id);
}

/** Clears the reason where everything has since been delivered or has failed (which is another reason). Returns how many. */
export async function clearDelivered(db: Database, minutes: number): Promise<number> {
  const left = withoutReasons(sql`c.attention`, ['undelivered']);
  const rows = await db.query(sql`
    UPDATE conversations c SET attention = ${left}, needs_attention = ${left} <> '[]', updated_at = now()
    WHERE c.needs_attention AND c.attention @> '[{"kind": "undelivered"}]'
      AND (SELECT bool_or(n.status = 'sent' AND n.outcome IS DISTINCT FROM 'history' AND n.occurred_at <= now() - ${minutes} * interval '1 minute') FROM (
        SELECT m.status, m.outcome, m.occurred_at FROM messages m WHERE m.conversation_id = c.id ORDER BY ${newestFirst('m')} LIMIT ${NEWEST_MESSAGES}
      ) n) IS NOT TRUE
    RETURNING c.id`);
  return rows.length;
}

function describeMinutes(minutes: number): string {
  const [count, unit] = minutes % 60 === 0 ? [minutes / 60, 'hour'] : [minutes, 'minute'];
  return `${count} ${unit}${count === 1 ? '' : 's'}`;
}
