/** Which rows a request may see. */
import { UNASSIGNED_NUMBER } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';
import { firstWorkspace } from './workspaces';

/** The id of the workspace whose rows a statement may see or change. Undefined: all of them. */
export type Scope = string | undefined;

/** The condition of a scope, for Prisma's models. */
export function inScope(scope: Scope): { workspaceId?: string } {
  return scope === undefined ? {} : { workspaceId: scope };
}

/**
 * Kapso's ids of the numbers whose messages a scope may see, for rows that were stored before a workspace was known; undefined for all.
 * Messages without a number belong to the first workspace.
 */
export async function numbersInScope(db: Database, scope: Scope): Promise<string[] | undefined> {
  if (scope === undefined) return undefined;
  const rows = await db.query<{ number: string | null }>(sql`
    SELECT kapso_phone_number_id AS number FROM workspaces WHERE id = ${scope}::uuid
    UNION ALL SELECT ${UNASSIGNED_NUMBER} WHERE ${scope}::uuid = ${firstWorkspace}`);
  return rows.flatMap(({ number }) => number ?? []);
}
