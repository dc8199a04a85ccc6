/** Which entries of Kapso's message list are already stored. */
import type { StatusReport } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';
import { isWorkspaceOf } from './workspaces';

/** Which messages (WhatsApp's ids) of a number are stored: recorded, parked, or as dead letters. */
export async function findStoredMessages(db: Database, phoneNumberId: string, ids: readonly string[]): Promise<Set<string>> {
  if (ids.length === 0) return new Set();
  const recorded = await db.query<{ id: string }>(sql`
    SELECT m.provider_message_id AS id FROM messages m JOIN workspaces w ON w.id = m.workspace_id
    WHERE m.provider_message_id = ANY(${ids}::text[]) AND ${isWorkspaceOf(phoneNumberId)}
    UNION SELECT provider_message_id FROM parked_messages WHERE phone_number_id = ${phoneNumberId} AND provider_message_id = ANY(${ids}::text[])`);
  const stored = new Set(recorded.map(({ id }) => id));
  const others = ids.filter((id) => !stored.has(id));
  if (others.length === 0) return stored;
  // A separate query, because dead letters have no index on the id, and nearly always nothing is left to look for.
  const letters = await db.query<{ id: string }>(sql`
    SELECT provider_message_id AS id FROM dead_letters
    WHERE phone_number_id = ${phoneNumberId} AND provider_message_id = ANY(${others}::text[])`);
  for (const { id } of letters) stored.add(id);
  return stored;
}

/** A status, with our id of the reply if the list has it. */
export type ListedStatus = StatusReport & { messageId?: string | undefined };

/** The statuses that would change nothing: they are stored, and our reply has WhatsApp's id and no lower status. */
export async function findAppliedStatuses(db: Database, statuses: readonly ListedStatus[]): Promise<Set<string>> {
  if (statuses.length === 0) return new Set();
  const input = statuses.map(({ providerMessageId, status, messageId }) => ({
    provider_message_id: providerMessageId,
    status,
    message_id: messageId ?? null,
  }));
  const rows = await db.query<{ key: string }>(sql`
    SELECT x.status || ' ' || x.provider_message_id AS key
    FROM jsonb_to_recordset(${JSON.stringify(input)}::jsonb) AS x(provider_message_id text, status text, message_id uuid)
    WHERE EXISTS (SELECT FROM message_status_events e WHERE e.provider_message_id = x.provider_message_id AND e.status = x.status)
      AND NOT EXISTS (SELECT FROM messages m WHERE m.direction = 'outbound' AND m.provider_message_id = x.provider_message_id
        AND m.status < x.status::message_status)
      AND NOT EXISTS (SELECT FROM messages m WHERE m.id = x.message_id AND m.direction = 'outbound'
        AND (m.provider_message_id IS NULL OR m.status < x.status::message_status))`);
  return new Set(rows.map(({ key }) => key));
}

/** The key of a status. */
export function statusKey({ status, providerMessageId }: Pick<StatusReport, 'status' | 'providerMessageId'>): string {
  return `${status} ${providerMessageId}`;
}
