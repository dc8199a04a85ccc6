/** Workspaces as people manage them: create, list, change, delete, each with its entry in the audit log. */
import type { ChatbotSettings, Prisma, Workspace } from '../../prisma/generated/client';
import { type Database, type Statements, sql } from '../platform/database';
import { isUniqueViolation } from '../platform/database-errors';
import type { EncryptionKeys } from '../platform/encryption';
import { type Actor, recordAudit } from './audit';
import { type CredentialField, encryptCredential } from './credentials';
import { type Page, pageOf } from './page';

/** A workspace without its secrets. */
export type WorkspaceRow = Omit<Workspace, 'version'> & {
  credentials: { field: string; lastFours: string[] }[];
  settings: WorkspaceAnswering | null;
};

/** Whether and how a workspace answers. */
export type WorkspaceAnswering = Pick<ChatbotSettings, 'chatbotEnabled' | 'aiEnabled' | 'providerChain' | 'systemPrompt'>;

/** The fields that people set. `null` clears one. */
export interface WorkspaceFields {
  name?: string | undefined;
  kapsoPhoneNumberId?: string | null | undefined;
  vapiPhoneNumberId?: string | null | undefined;
  vapiAssistantId?: string | null | undefined;
  timeZone?: string | null | undefined;
}

/** New values of credentials; `null` deletes one. */
export type CredentialChanges = Partial<Record<CredentialField, readonly string[] | null>>;

export interface WorkspaceChange {
  fields: WorkspaceFields;
  settings: { [K in keyof WorkspaceAnswering]?: WorkspaceAnswering[K] | undefined };
  credentials: CredentialChanges;
}

/** Another workspace has the number. */
export class NumberTakenError extends Error {
  override name = 'NumberTakenError';
}

const answering = { chatbotEnabled: true, aiEnabled: true, providerChain: true, systemPrompt: true } as const;
const shown = {
  omit: { version: true },
  include: { credentials: { select: { field: true, lastFours: true } }, settings: { select: answering } },
} as const;

/** Oldest first; `after`: time and id of the last row of the previous page. `id`: only this one. */
export async function findWorkspaces(
  db: Database,
  { id }: { id: string | undefined },
  { limit, after }: { limit: number; after?: { at: Date; id: string } | undefined },
): Promise<Page<WorkspaceRow>> {
  const rows = await db.orm.workspace.findMany({
    where: {
      ...(id === undefined ? {} : { id }),
      ...(after ? { OR: [{ createdAt: { gt: after.at } }, { createdAt: after.at, id: { gt: after.id } }] } : {}),
    },
    orderBy: [{ createdAt: 'asc' }, { id: 'asc' }],
    take: limit + 1,
    ...shown,
  });
  return pageOf(rows, limit);
}

/** Null if there is none. */
export async function findWorkspace(db: Database, id: string): Promise<WorkspaceRow | null> {
  return await db.orm.workspace.findUnique({ where: { id }, ...shown });
}

/** Creates a workspace with the default settings of the chatbot. @throws NumberTakenError, EncryptionKeyError */
export async function createWorkspace(
  db: Database,
  { fields, settings, credentials }: WorkspaceChange & { fields: { name: string } },
  keys: EncryptionKeys,
  actor: Actor,
): Promise<string> {
  return await withUniqueNumbers(() =>
    db.transaction(async (transaction) => {
      const { name, kapsoPhoneNumberId, vapiPhoneNumberId, vapiAssistantId, timeZone } = fields;
      const [row] = await transaction.query<{ id: string }>(sql`
        INSERT INTO workspaces (name, kapso_phone_number_id, vapi_phone_number_id, vapi_assistant_id, time_zone)
        VALUES (${name}, ${kapsoPhoneNumberId ?? null}, ${vapiPhoneNumberId ?? null}, ${vapiAssistantId ?? null}, ${timeZone ?? null})
        RETURNING id`);
      if (!row) throw new Error('the workspace was not created');
      await transaction.query(sql`INSERT INTO chatbot_settings (workspace_id, updated_at) VALUES (${row.id}::uuid, now())`);
      const { after: answers } = await writeSettings(transaction, row.id, settings);
      const after = { ...given(fields), ...answers, ...(await writeCredentials(transaction, row.id, credentials, keys)) };
      await recordAudit(transaction, { actor, workspaceId: row.id, action: 'workspace.created', subject: `workspace ${row.id}`, after });
      return row.id;
    }),
  );
}

/** The result of a change. `has_conversations`: its number cannot change any more. */
export type ChangeResult = 'changed' | 'not_found' | 'has_conversations';

/** Changes what is given. @throws NumberTakenError, EncryptionKeyError */
export async function changeWorkspace(
  db: Database,
  id: string,
  { fields, settings, credentials }: WorkspaceChange,
  keys: EncryptionKeys,
  actor: Actor,
): Promise<ChangeResult> {
  return await withUniqueNumbers(() =>
    db.transaction(async (transaction) => {
      const before = await lockWorkspace(transaction, id);
      if (!before) return 'not_found';
      const changed = Object.entries(given(fields)).filter(([name, value]) => before[name as keyof WorkspaceFields] !== value);
      const wanted = Object.fromEntries(changed) as WorkspaceFields;
      if (wanted.kapsoPhoneNumberId !== undefined && (await hasConversations(transaction, id))) return 'has_conversations';
      const answers = await writeSettings(transaction, id, settings);
      const written = await writeCredentials(transaction, id, credentials, keys);
      if (changed.length === 0 && written === undefined && answers.after === undefined) return 'changed';
      const after = { ...before, ...wanted };
      await transaction.query(sql`
        UPDATE workspaces SET name = ${after.name}, kapso_phone_number_id = ${after.kapsoPhoneNumberId},
          vapi_phone_number_id = ${after.vapiPhoneNumberId}, vapi_assistant_id = ${after.vapiAssistantId}, time_zone = ${after.timeZone},
          version = version + 1
        WHERE id = ${id}::uuid`);
      const earlier = Object.fromEntries(changed.map(([name]) => [name, before[name as keyof WorkspaceFields]]));
      await recordAudit(transaction, {
        ...{ actor, workspaceId: id, action: 'workspace.changed', subject: `workspace ${id}` },
        ...{ before: { ...earlier, ...answers.before }, after: { ...wanted, ...answers.after, ...written } },
      });
      return 'changed';
    }),
  );
}

type LockedWorkspace = Required<{ [K in keyof WorkspaceFields]: string | null }>;

async function lockWorkspace(transaction: Statements, id: string): Promise<LockedWorkspace | undefined> {
  const [row] = await transaction.query<LockedWorkspace>(sql`
    SELECT name, kapso_phone_number_id AS "kapsoPhoneNumberId", vapi_phone_number_id AS "vapiPhoneNumberId",
      vapi_assistant_id AS "vapiAssistantId", time_zone AS "timeZone"
    FROM workspaces WHERE id = ${id}::uuid FOR UPDATE`);
  return row;
}

async function hasConversations(transaction: Statements, workspaceId: string): Promise<boolean> {
  return (await transaction.query(sql`SELECT 1 FROM conversations WHERE workspace_id = ${workspaceId}::uuid LIMIT 1`)).length > 0;
}

/** Returns what changed, as it was and as it is. */
async function writeSettings(
  transaction: Statements,
  workspaceId: string,
  settings: WorkspaceChange['settings'],
): Promise<{ before?: Partial<WorkspaceAnswering>; after?: Partial<WorkspaceAnswering> }> {
  if (Object.keys(given(settings)).length === 0) return {};
  await transaction.query(sql`
    INSERT INTO chatbot_settings (workspace_id, updated_at) VALUES (${workspaceId}::uuid, now()) ON CONFLICT DO NOTHING`);
  const [before] = await transaction.query<WorkspaceAnswering>(sql`
    SELECT chatbot_enabled AS "chatbotEnabled", ai_enabled AS "aiEnabled", provider_chain AS "providerChain", system_prompt AS "systemPrompt"
    FROM chatbot_settings WHERE workspace_id = ${workspaceId}::uuid FOR UPDATE`);
  if (!before) throw new Error('the workspace has no settings');
  const changed = Object.entries(given(settings)).filter(
    ([name, value]) => JSON.stringify(before[name as keyof WorkspaceAnswering]) !== JSON.stringify(value),
  );
  if (changed.length === 0) return {};
  const after = { ...before, ...(Object.fromEntries(changed) as Partial<WorkspaceAnswering>) };
  await transaction.query(sql`
    UPDATE chatbot_settings SET chatbot_enabled = ${after.chatbotEnabled}, ai_enabled = ${after.aiEnabled},
      provider_chain = ${after.providerChain}::text[], system_prompt = ${after.systemPrompt}, updated_at = now()
    WHERE workspace_id = ${workspaceId}::uuid`);
  const earlier = Object.fromEntries(changed.map(([name]) => [name, before[name as keyof WorkspaceAnswering]]));
  return { before: earlier, after: Object.fromEntries(changed) };
}

/** Returns what the audit log says of it: which were set or removed, never a value. Undefined if there was nothing to write. */
async function writeCredentials(
  transaction: Statements,
  workspaceId: string,
  changes: CredentialChanges,
  keys: EncryptionKeys,
): Promise<{ credentials: Record<string, 'set' | 'removed'> } | undefined> {
  const written: Record<string, 'set' | 'removed'> = {};
  for (const [field, values] of Object.entries(changes) as [CredentialField, readonly string[] | null][]) {
    if (values === null) {
      await transaction.query(sql`DELETE FROM workspace_credentials WHERE workspace_id = ${workspaceId}::uuid AND field = ${field}`);
    } else {
      const { encrypted, lastFours } = encryptCredential(workspaceId, field, values, keys);
      await transaction.query(sql`
        INSERT INTO workspace_credentials (workspace_id, field, encrypted, last_fours)
        VALUES (${workspaceId}::uuid, ${field}, ${encrypted}, ${lastFours}::text[])
        ON CONFLICT (workspace_id, field) DO UPDATE SET encrypted = EXCLUDED.encrypted, last_fours = EXCLUDED.last_fours, updated_at = now()`);
    }
    written[field] = values === null ? 'removed' : 'set';
  }
  return Object.keys(written).length === 0 ? undefined : { credentials: written };
}

function given<T extends object>(fields: T): Partial<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Partial<T>;
}

async function withUniqueNumbers<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (isUniqueViolation(error)) throw new NumberTakenError('another workspace has this number');
    throw error;
  }
}

/** What a workspace has that its deletion would take along. */
export interface WorkspaceContent {
  name: string;
  kapsoPhoneNumberId: string | null;
  conversations: number;
  /** Calls that are not done. */
  openCalls: number;
}

/** Undefined if there is no such workspace. */
export async function findWorkspaceContent(db: Database, id: string): Promise<WorkspaceContent | undefined> {
  const [row] = await db.query<WorkspaceContent>(sql`
    SELECT name, kapso_phone_number_id AS "kapsoPhoneNumberId",
      (SELECT count(*)::int FROM conversations c WHERE c.workspace_id = w.id) AS conversations,
      (SELECT count(*)::int FROM vapi_call_results r WHERE r.workspace_id = w.id AND r.done_at IS NULL) AS "openCalls"
    FROM workspaces w WHERE id = ${id}::uuid`);
  return row;
}

/** Rows deleted per statement: each contact takes its conversation along. */
const DELETE_BATCH = 200;

/**
 * Deletes a workspace with everything in it; its entries in the audit log stay. In batches, so that no statement runs for long: after
 * `untilMs` (by `Date.now`) it returns false, and the next request continues.
 */
export async function deleteWorkspace(
  db: Database,
  id: string,
  { name, conversations }: Pick<WorkspaceContent, 'name' | 'conversations'>,
  actor: Actor,
  untilMs: number,
): Promise<boolean> {
  const batches: Prisma.Sql[] = [
    sql`DELETE FROM contacts WHERE id IN (SELECT id FROM contacts WHERE workspace_id = ${id}::uuid LIMIT ${DELETE_BATCH}) RETURNING 1`,
    sql`DELETE FROM vapi_call_results WHERE id IN (
      SELECT id FROM vapi_call_results WHERE workspace_id = ${id}::uuid AND done_at IS NOT NULL LIMIT ${DELETE_BATCH}) RETURNING 1`,
  ];
  for (const batch of batches) {
    while ((await db.query(batch)).length > 0) if (Date.now() > untilMs) return false;
  }
  await db.transaction(async (transaction) => {
    const [row] = await transaction.query<{ number: string | null }>(sql`
      DELETE FROM workspaces WHERE id = ${id}::uuid RETURNING kapso_phone_number_id AS number`);
    if (!row) return;
    await transaction.query(sql`
      DELETE FROM dead_letters WHERE workspace_id = ${id}::uuid OR phone_number_id = ${row.number}`);
    await transaction.query(sql`DELETE FROM parked_messages WHERE phone_number_id = ${row.number} AND released_at IS NOT NULL`);
    await recordAudit(transaction, {
      ...{ actor, workspaceId: id, action: 'workspace.deleted', subject: `workspace ${id}` },
      before: { name, kapsoPhoneNumberId: row.number, conversations },
    });
  });
  return true;
}
