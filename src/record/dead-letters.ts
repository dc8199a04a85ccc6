/**
 * Dead letters: what could not be read or stored, with its reason and body. The same item delivered again is a single row.
 */
import { createHash } from 'node:crypto';
import type { DeadLetter, Prisma } from '../../prisma/generated/client';
import type { ContactIdentity, InboundMessage } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';
import { boundedJson, cutText } from '../platform/text';
import { raisedAlert } from './alerts';
import { clearDeadLetterAttention } from './attention';
import { type Actor, recordAudit } from './audit';
import { numbersInScope, type Scope } from './scope';

/** Where a dead letter arrived. */
export const DEAD_LETTER_SOURCES = ['kapso', 'vapi', 'conversation', 'signal'] as const;
export type DeadLetterSource = (typeof DEAD_LETTER_SOURCES)[number];

/** Short codes of letters and underscores: they are metric labels. */
export const DEAD_LETTER_REASONS = [
  'not_json',
  'too_deep',
  'unreadable',
  'no_id',
  'no_sender',
  'no_recipient',
  'odd_number_id',
  'direction_unknown',
  'record_refused',
  'temporal_refused',
] as const;
export type DeadLetterReason = (typeof DEAD_LETTER_REASONS)[number];

/** Common fields of all letters. */
interface LetterFacts {
  reason: DeadLetterReason;
  /** The reason in words, without personal data. */
  detail: string;
  phoneNumberId?: string;
  /** WhatsApp's id of the message. */
  providerMessageId?: string;
  /** The workspace whose secret proved the sender; undefined: a secret of the environment did. */
  workspaceId?: string;
}

/** A webhook, or one item of it. */
export interface WebhookLetter extends LetterFacts {
  source: 'kapso' | 'vapi';
  /** The sender's name for the event, if the body does not contain it. */
  event?: string;
  /** What a replay reads: a JSON value, or the bytes of a body that is not JSON. */
  body: unknown;
}

/** A message that the database rejected, in the form in which a replay signals it again. */
export interface RefusedMessage {
  phoneNumberId: string;
  contact: ContactIdentity;
  message: InboundMessage;
}

/** A message that reached its conversation, but that the database rejected. */
export interface ConversationLetter extends LetterFacts {
  source: 'conversation';
  workflowId?: string;
  conversationId?: string;
  body: RefusedMessage;
}

/** A signal or a start that Temporal rejected, as the request that a replay sends again. */
export interface SignalLetter extends LetterFacts {
  source: 'signal';
  body: unknown;
}

export type NewDeadLetter = WebhookLetter | ConversationLetter | SignalLetter;

/** Maximum length in characters of JSON, or in bytes; larger than WhatsApp's largest webhook. */
const MAX_BODY = 4 * 1024 * 1024;

/** Stores a dead letter, once per item. Returns its id. @throws the database's error */
export async function keepDeadLetter(db: Database, letter: NewDeadLetter): Promise<string> {
  const [id] = await keepDeadLetters(db, [letter]);
  if (id === undefined) throw new Error('the dead letter was not stored');
  return id;
}

/** Keeps several in one statement: all of them or none. Returns the ids of the rows. @throws what the database throws */
export async function keepDeadLetters(db: Database, letters: readonly NewDeadLetter[]): Promise<string[]> {
  // A statement cannot update the same row twice.
  const rows = [...new Map(letters.map(storable).map((row) => [row.digest, row])).values()];
  if (rows.length === 0) return [];
  const column = <K extends keyof Storable>(name: K) => rows.map((row) => row[name]);
  const { reason, detail } = letters[0] ?? { reason: '', detail: '' };
  const alert = { cause: `dead letter: ${reason}`, text: `dead letter: ${detail}` };
  const kept = await db.query<{ id: string }>(sql`
    WITH kept AS (INSERT INTO dead_letters (source, reason, detail, event, phone_number_id, workspace_id, provider_message_id, workflow_id,
      conversation_id, body, raw_body, is_truncated, digest)
    SELECT source, reason, detail, event, phone_number_id, workspace_id, provider_message_id, workflow_id, conversation_id,
      body::jsonb, raw_body, is_truncated, digest
    FROM unnest(${column('source')}::text[], ${column('reason')}::text[], ${column('detail')}::text[], ${column('event')}::text[],
      ${column('phoneNumberId')}::text[], ${column('workspaceId')}::uuid[], ${column('providerMessageId')}::text[], ${column('workflowId')}::text[],
      ${column('conversationId')}::uuid[], ${column('body')}::text[], ${column('rawBody')}::bytea[], ${column('isTruncated')}::boolean[],
      ${column('digest')}::text[])
      AS l(source, reason, detail, event, phone_number_id, workspace_id, provider_message_id, workflow_id, conversation_id,
        body, raw_body, is_truncated, digest)
    ON CONFLICT (digest) DO UPDATE SET
      occurrences = dead_letters.occurrences + 1, last_seen_at = now(), replayed_at = NULL,
      reason = EXCLUDED.reason, detail = EXCLUDED.detail, event = EXCLUDED.event,
      phone_number_id = EXCLUDED.phone_number_id, provider_message_id = EXCLUDED.provider_message_id,
      workflow_id = EXCLUDED.workflow_id, conversation_id = EXCLUDED.conversation_id,
      body = EXCLUDED.body, raw_body = EXCLUDED.raw_body, is_truncated = EXCLUDED.is_truncated
    RETURNING id, source), alerted AS (
      -- A conversation's dead letters are a reason for its attention, which raises the alert.
      ${raisedAlert(alert, sql`SELECT 'dead letter ' || id AS subject FROM kept WHERE source <> 'conversation'`)}
    )
    SELECT id FROM kept`);
  return kept.map(({ id }) => id);
}

interface Storable {
  source: string;
  reason: string;
  detail: string;
  event: string | null;
  phoneNumberId: string | null;
  workspaceId: string | null;
  providerMessageId: string | null;
  workflowId: string | null;
  conversationId: string | null;
  body: string | null;
  rawBody: Buffer | null;
  isTruncated: boolean;
  digest: string;
}

const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i;

/** Makes a letter storable, whatever it contains: a rejected dead letter would have nowhere else to go. */
function storable(letter: NewDeadLetter): Storable {
  const stored = storableBody(letter.body);
  const { workflowId, conversationId } = letter.source === 'conversation' ? letter : {};
  return {
    source: letter.source,
    reason: cutText(letter.reason, 64),
    detail: cutText(letter.detail, 500),
    event: textOrNull('event' in letter ? letter.event : undefined),
    phoneNumberId: textOrNull(letter.phoneNumberId),
    workspaceId: letter.workspaceId ?? null,
    providerMessageId: textOrNull(letter.providerMessageId),
    workflowId: textOrNull(workflowId),
    conversationId: conversationId !== undefined && UUID.test(conversationId) ? conversationId : null,
    ...stored,
    digest: digestOf(letter, stored),
  };
}

type StorableBody = Pick<Storable, 'body' | 'rawBody' | 'isTruncated'>;

function storableBody(body: unknown): StorableBody {
  if (Buffer.isBuffer(body)) return storableBytes(body);
  const json = boundedJson(body ?? null, MAX_BODY);
  if (json !== undefined) return { body: JSON.stringify(json), rawBody: null, isTruncated: false };
  try {
    return storableBytes(Buffer.from(JSON.stringify(body)));
  } catch {
    return { body: null, rawBody: null, isTruncated: true };
  }
}

function storableBytes(bytes: Buffer): StorableBody {
  return { body: null, rawBody: bytes.subarray(0, MAX_BODY), isTruncated: bytes.length > MAX_BODY };
}

/** Identifies a message by its id, whatever is known about its sender, and an item of a webhook by its content. */
function digestOf({ source, phoneNumberId, providerMessageId, workspaceId }: NewDeadLetter, { body, rawBody }: StorableBody): string {
  // Two workspaces may be sent the same body.
  const hash = createHash('sha256').update(JSON.stringify(workspaceId === undefined ? [source] : [source, workspaceId]));
  if (source === 'conversation' && providerMessageId !== undefined) hash.update(JSON.stringify([phoneNumberId, providerMessageId]));
  else hash.update(rawBody ?? body ?? '');
  return hash.digest('hex');
}

function textOrNull(text: string | undefined): string | null {
  return text === undefined ? null : cutText(text, 512);
}

/** The result of a replay. */
export type Replayed =
  /** `taken`: handed over, as from a webhook. `skipped`: understood, but irrelevant. */
  | { result: 'taken' | 'skipped' }
  /** The letter stays open. */
  | { result: 'failed'; reason: string; detail: string };

/** A filter; undefined fields do not filter. */
export interface DeadLetterFilter {
  workspaceId?: Scope;
  reason?: string | undefined;
  source?: DeadLetterSource | undefined;
  replayed?: boolean | undefined;
}

/** A page begins after this letter, in the order of the list. */
export interface DeadLetterPosition {
  at: Date;
  id: string;
}

/** A letter without its body. */
export type DeadLetterHead = Omit<DeadLetter, 'body' | 'rawBody' | 'digest'>;

const BODILESS = { body: true, rawBody: true, digest: true } satisfies Prisma.DeadLetterOmit;

async function whereOf(db: Database, { workspaceId, reason, source, replayed }: DeadLetterFilter): Promise<Prisma.DeadLetterWhereInput> {
  const numbers = await numbersInScope(db, workspaceId);
  return {
    ...(numbers === undefined || workspaceId === undefined ? {} : { OR: [{ workspaceId }, { phoneNumberId: { in: numbers } }] }),
    ...(reason === undefined ? {} : { reason }),
    ...(source === undefined ? {} : { source }),
    ...(replayed === undefined ? {} : { replayedAt: replayed ? { not: null } : null }),
  };
}

/** Dead letters, newest first, without their bodies. */
export async function listDeadLetters(
  db: Database,
  filter: DeadLetterFilter,
  { limit, before }: { limit: number; before?: DeadLetterPosition | undefined },
): Promise<DeadLetterHead[]> {
  const older = before ? { OR: [{ createdAt: { lt: before.at } }, { createdAt: before.at, id: { lt: before.id } }] } : {};
  return await db.orm.deadLetter.findMany({
    where: { AND: [await whereOf(db, filter), older] },
    orderBy: [{ createdAt: 'desc' }, { id: 'desc' }],
    take: limit,
    omit: BODILESS,
  });
}

/** Dead letters that were not replayed, oldest first. */
export async function listOpenDeadLetters(
  db: Database,
  filter: Omit<DeadLetterFilter, 'replayed'>,
  { limit, after }: { limit: number; after?: DeadLetterPosition | undefined },
): Promise<DeadLetterPosition[]> {
  const newer = after ? { OR: [{ createdAt: { gt: after.at } }, { createdAt: after.at, id: { gt: after.id } }] } : {};
  const rows = await db.orm.deadLetter.findMany({
    where: { AND: [await whereOf(db, { ...filter, replayed: false }), newer] },
    orderBy: [{ createdAt: 'asc' }, { id: 'asc' }],
    take: limit,
    select: { id: true, createdAt: true },
  });
  return rows.map(({ id, createdAt }) => ({ id, at: createdAt }));
}

/** One dead letter with its body; null if the scope has no such letter. */
export async function findDeadLetter(db: Database, id: string, scope?: Scope): Promise<DeadLetter | null> {
  return await db.orm.deadLetter.findFirst({ where: { ...(await whereOf(db, { workspaceId: scope })), id } });
}

/** Marks a letter as replayed. Returns false if the same item has failed again since the letter was read; the letter then stays open. */
export async function markReplayed(db: Database, { id, occurrences }: Pick<DeadLetter, 'id' | 'occurrences'>): Promise<boolean> {
  const { count } = await db.orm.deadLetter.updateMany({ where: { id, occurrences }, data: { replayedAt: new Date() } });
  return count > 0;
}

/** Deletes a letter, and with it the reason for attention that it was, in one transaction. Harmless if it is gone. */
export async function deleteDeadLetter(
  db: Database,
  { id, workflowId, reason, detail }: Pick<DeadLetter, 'id' | 'workflowId' | 'reason' | 'detail'>,
  { actor, workspaceId }: { actor: Actor; workspaceId: Scope },
): Promise<void> {
  await db.transaction(async (transaction) => {
    const deleted = await transaction.query(sql`DELETE FROM dead_letters WHERE id = ${id}::uuid RETURNING 1`);
    if (deleted.length === 0) return;
    const entry = { actor, workspaceId, action: 'dead_letter.deleted', subject: `dead_letter ${id}` };
    await recordAudit(transaction, { ...entry, before: { reason, detail } });
    if (workflowId) await clearDeadLetterAttention(transaction, workflowId);
  });
}

/** Stores why a replay failed. */
export async function renewReason(db: Database, id: string, { reason, detail }: { reason: string; detail: string }): Promise<void> {
  await db.orm.deadLetter.updateMany({ where: { id }, data: { reason, detail } });
}

/**
 * Deletes up to `batch` letters last seen before `beforeMs` (milliseconds since 1970), replayed or not, and with them the reasons for
 * attention that they were. Returns the number.
 */
export async function deleteOldDeadLetters(db: Database, beforeMs: number, batch: number): Promise<number> {
  return await db.transaction(async (transaction) => {
    const deleted = await transaction.query<{ workflowId: string | null }>(sql`
      DELETE FROM dead_letters WHERE id IN (
        SELECT id FROM dead_letters WHERE last_seen_at < ${new Date(beforeMs)} ORDER BY last_seen_at LIMIT ${batch}
      ) RETURNING workflow_id AS "workflowId"`);
    const workflowIds = new Set(deleted.flatMap(({ workflowId }) => workflowId ?? []));
    for (const workflowId of workflowIds) await clearDeadLetterAttention(transaction, workflowId);
    return deleted.length;
  });
}

/** How many letters were last seen before `beforeMs` (milliseconds since 1970). */
export async function countOldDeadLetters(db: Database, beforeMs: number): Promise<number> {
  return await db.orm.deadLetter.count({ where: { lastSeenAt: { lt: new Date(beforeMs) } } });
}
