/** The keys of workspaces. Only their hashes are stored. */
import { type ApiKey, ApiKeyRole } from '../../prisma/generated/client';
import { type Database, sql } from '../platform/database';
import { type Actor, recordAudit } from './audit';

export { ApiKeyRole };

/** A key in a list. */
export type ApiKeyRow = Omit<ApiKey, 'keyHash'>;

/** A key, with its workspace and role. */
export interface KeyHolder {
  keyId: string;
  name: string;
  role: ApiKeyRole;
  workspaceId: string;
}

/** `last_used_at` is written at most this often, in seconds. */
const USE_RECORDED_EVERY_SECONDS = 60;

/** Maximum number of keys per workspace. */
export const MAX_KEYS = 100;

/** The key with this hash; undefined if there is none. Records its use. */
export async function findKeyHolder(db: Database, keyHash: string): Promise<KeyHolder | undefined> {
  const [holder] = await db.query<KeyHolder>(sql`
    WITH used AS (
      UPDATE api_keys SET last_used_at = now() WHERE key_hash = ${keyHash}
        AND (last_used_at IS NULL OR last_used_at < now() - ${USE_RECORDED_EVERY_SECONDS} * interval '1 second')
    )
    SELECT id AS "keyId", name, role, workspace_id AS "workspaceId" FROM api_keys WHERE key_hash = ${keyHash}`);
  return holder;
}

/** Oldest first. */
export async function findKeys(db: Database, workspaceId: string): Promise<ApiKeyRow[]> {
  return await db.orm.apiKey.findMany({ where: { workspaceId }, orderBy: [{ createdAt: 'asc' }, { id: 'asc' }], omit: { keyHash: true } });
}

export interface NewKey {
  workspaceId: string;
  name: string;
  role: ApiKeyRole;
  /** SHA-256 in hex. */
  keyHash: string;
  lastFour: string;
}

/** Stores a new key. Undefined if the workspace has `MAX_KEYS` already. @throws a foreign key violation if there is no such workspace */
export async function createKey(db: Database, key: NewKey, actor: Actor): Promise<ApiKeyRow | undefined> {
  const { workspaceId, name, role, keyHash, lastFour } = key;
  return await db.transaction(async (transaction) => {
    // Two concurrent requests must not both create the last allowed key.
    await transaction.query(sql`SELECT 1 FROM workspaces WHERE id = ${workspaceId}::uuid FOR UPDATE`);
    const [row] = await transaction.query<ApiKeyRow>(sql`
      INSERT INTO api_keys (workspace_id, name, role, key_hash, last_four)
      SELECT ${workspaceId}::uuid, ${name}, ${role}::api_key_role, ${keyHash}, ${lastFour}
      WHERE (SELECT count(*) FROM api_keys WHERE workspace_id = ${workspaceId}::uuid) < ${MAX_KEYS}
      RETURNING id, workspace_id AS "workspaceId", name, role, last_four AS "lastFour", created_at AS "createdAt", last_used_at AS "lastUsedAt"`);
    if (row) await recordAudit(transaction, { actor, workspaceId, action: 'key.created', subject: `key ${row.id}`, after: { name, role } });
    return row;
  });
}

/** Revokes a key. False if the workspace has no such key. */
export async function deleteKey(db: Database, { workspaceId, id }: { workspaceId: string; id: string }, actor: Actor): Promise<boolean> {
  return await db.transaction(async (transaction) => {
    const [key] = await transaction.query<{ name: string; role: string }>(sql`
      DELETE FROM api_keys WHERE id = ${id}::uuid AND workspace_id = ${workspaceId}::uuid RETURNING name, role`);
    if (key) await recordAudit(transaction, { actor, workspaceId, action: 'key.revoked', subject: `key ${id}`, before: key });
    return key !== undefined;
  });
}
