/** Who waits for a person: since when, and why. */
import { type Database, sql } from '../platform/database';
import { type ConversationRow, findConversationsById } from './conversations';

/** Which reasons count. Undefined fields do not filter. */
export interface QueueFilter {
  workspaceId?: string | undefined;
  kinds?: readonly string[] | undefined;
  /** Only reasons that came up later than this one. */
  after?: QueuePosition | undefined;
}

/** A place in the queue: the time of a reason (ISO 8601, UTC, with milliseconds) and its conversation. */
export interface QueuePosition {
  since: string;
  id: string;
}

/** A conversation with the oldest of its reasons that count. */
export interface QueuedConversation {
  conversation: ConversationRow;
  position: QueuePosition;
}

/** The conversations with such a reason, longest waiting first. */
export async function findQueue(db: Database, filter: QueueFilter, limit: number): Promise<QueuedConversation[]> {
  const { workspaceId = null, kinds, after } = filter;
  const positions = await db.query<QueuePosition>(sql`
    SELECT c.id, min(r.reason->>'since') AS since FROM conversations c CROSS JOIN LATERAL jsonb_array_elements(c.attention) r(reason)
    WHERE c.needs_attention AND (${workspaceId}::uuid IS NULL OR c.workspace_id = ${workspaceId}::uuid)
      AND (${kinds ? [...kinds] : null}::text[] IS NULL OR r.reason->>'kind' = ANY(${kinds ? [...kinds] : null}::text[]))
      AND (${after?.since ?? null}::text IS NULL OR (r.reason->>'since', c.id) > (${after?.since ?? null}::text, ${after?.id ?? null}::uuid))
    GROUP BY c.id ORDER BY since, c.id LIMIT ${limit}`);
  const conversations = await findConversationsById(
    db,
    positions.map(({ id }) => id),
  );
  return positions.flatMap((position) => {
    const conversation = conversations.get(position.id);
    return conversation ? [{ conversation, position }] : [];
  });
}

/** The newest reason of a kind in a workspace. */
export interface NewestReason {
  workspaceId: string;
  kind: string;
  position: QueuePosition;
}

/** The newest reasons by workspace and kind: enough to tell whether somebody new waits, for any filter. */
export async function findNewestReasons(db: Database): Promise<NewestReason[]> {
  return await db.query<NewestReason>(sql`
    SELECT DISTINCT ON (c.workspace_id, r.reason->>'kind') c.workspace_id AS "workspaceId", r.reason->>'kind' AS kind,
      json_build_object('since', r.reason->>'since', 'id', c.id) AS position
    FROM conversations c CROSS JOIN LATERAL jsonb_array_elements(c.attention) r(reason) WHERE c.needs_attention
    ORDER BY c.workspace_id, r.reason->>'kind', r.reason->>'since' DESC, c.id DESC`);
}

/** Whether one of the reasons counts. */
export function hasMatch(reasons: readonly NewestReason[], { workspaceId, kinds, after }: QueueFilter): boolean {
  return reasons.some(
    (reason) =>
      (workspaceId === undefined || reason.workspaceId === workspaceId) &&
      (kinds === undefined || kinds.includes(reason.kind)) &&
      (after === undefined || isLater(reason.position, after)),
  );
}

function isLater(one: QueuePosition, other: QueuePosition): boolean {
  return one.since > other.since || (one.since === other.since && one.id > other.id);
}
