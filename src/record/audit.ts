/**
 * Changes made through the API: who, what, before, after, when. Written in the transaction of the change where there is one. Entries
 * contain no secret and no text of a message, and outlive what they name.
 */
import type { AuditEntry, Prisma } from '../../prisma/generated/client';
import { type Database, type Statements, sql } from '../platform/database';
import { type Page, pageOf } from './page';
import { inScope, type Scope } from './scope';

/** Who made a change: the key of the request. */
export interface Actor {
  name: string;
  /** Undefined: a key of `API_KEYS`. */
  keyId: string | undefined;
}

/** One change. */
export interface NewAuditEntry {
  actor: Actor;
  /** Undefined if the change concerns the whole installation. */
  workspaceId: string | undefined;
  /** Subject and verb in the past tense, such as `key.created`. */
  action: string;
  /** What was changed, such as `conversation <id>`. */
  subject: string;
  /** JSON values of what changed; left out where there is nothing to show. */
  before?: object | undefined;
  after?: object | undefined;
}

export type AuditRow = AuditEntry;

/** Records a change; inside a transaction, together with it. */
export async function recordAudit(db: Statements, entry: NewAuditEntry): Promise<void> {
  await db.query(auditInsert(entry));
}

/** The INSERT of an entry, for a statement that makes the change itself. `onlyIf`: a query; without a row, nothing is recorded. */
export function auditInsert(
  { actor, workspaceId, action, subject, before, after }: NewAuditEntry,
  onlyIf: Prisma.Sql = sql`SELECT 1`,
): Prisma.Sql {
  return sql`
    INSERT INTO audit_entries (workspace_id, actor, actor_key_id, action, subject, before, after)
    SELECT ${workspaceId ?? null}::uuid, ${actor.name}, ${actor.keyId ?? null}::uuid, ${action}, ${subject}, ${jsonOf(before)}::jsonb,
      ${jsonOf(after)}::jsonb
    WHERE EXISTS (${onlyIf})`;
}

function jsonOf(value: object | undefined): string | null {
  return value === undefined ? null : JSON.stringify(value);
}

/** Undefined fields do not filter. */
export interface AuditFilter {
  workspaceId?: Scope;
  action?: string | undefined;
  subject?: string | undefined;
}

/** Newest first; `before`: time and id of the last row of the previous page. */
export async function findAuditEntries(
  db: Database,
  { workspaceId, action, subject }: AuditFilter,
  { limit, before }: { limit: number; before?: { at: Date; id: string } | undefined },
): Promise<Page<AuditRow>> {
  const rows = await db.orm.auditEntry.findMany({
    where: {
      ...inScope(workspaceId),
      ...(action === undefined ? {} : { action }),
      ...(subject === undefined ? {} : { subject }),
      ...(before ? { OR: [{ createdAt: { lt: before.at } }, { createdAt: before.at, id: { lt: before.id } }] } : {}),
    },
    orderBy: [{ createdAt: 'desc' }, { id: 'desc' }],
    take: limit + 1,
  });
  return pageOf(rows, limit);
}
