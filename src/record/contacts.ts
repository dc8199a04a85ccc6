/**
 * Contacts: who wrote. A message names its sender by a number, a business-scoped id, or both, in any order over time; all names of one
 * person lead to one contact.
 *
 * Invariants:
 * - an alias belongs to one contact, and a contact has at most one number;
 * - a contact is created in one statement, and changed in a transaction that has locked it. A transaction never takes an alias from a
 *   contact that it has not seen: it starts over;
 * - a contact has one conversation, and that has one workflow as its owner, whichever workflow records.
 */
import { randomBytes } from 'node:crypto';
import { Prisma } from '../../prisma/generated/client';
import { type ContactIdentity, conversationWorkflowId } from '../../workflows/contract';
import { type Database, type Statements, sql } from '../platform/database';
import { isConflict, isUniqueViolation } from '../platform/database-errors';
import { phoneMatchingKey, phoneSpellings, SPELLING_RULES } from '../platform/phone';
import type { Identity } from './identity';
import { mergeContact } from './merge-contacts';

import { type KnownAlias, type KnownContact, type NamedAliases, type ResolvedSender, resolveSender } from './same-person';
import { firstWorkspace } from './workspaces';

/** Who wrote, according to a delivery. */
export interface Sender {
  contact: ContactIdentity;
  /** When the newest message of the delivery was written, in ms since 1970 by WhatsApp's clock. */
  statedAtMs: number;
}

/** The workflow that records. */
export interface RecordingWorkflow {
  phoneNumberId: string;
  contactKey: string;
  workflowId: string;
}

export interface ContactIds {
  contactId: string;
  conversationId: string;
}

/**
 * Joins to `workspaces w` the aliases `by_phone` and `by_user_id` that a sender names. Leaves out an alias that two contacts share
 * because they are older than the alias table, so that the next message decides.
 */
export function joinAliases({ phone, businessScopedUserId }: ContactIdentity): Prisma.Sql {
  return sql`
    LEFT JOIN contact_aliases by_phone ON by_phone.kind = 'phone' AND by_phone.value = ${phoneKeyOf(phone)}
      AND by_phone.workspace_id = w.id AND by_phone.stated_at IS NOT NULL
    LEFT JOIN contact_aliases by_user_id ON by_user_id.kind = 'user_id' AND by_user_id.value = ${businessScopedUserId ?? null}
      AND by_user_id.workspace_id = w.id AND by_user_id.stated_at IS NOT NULL`;
}

/** The conversation of a workspace (null: the first one) with the person who has this phone number, in any spelling. */
export function conversationWith(number: Prisma.Sql, workspaceId: Prisma.Sql): Prisma.Sql {
  return sql`(
    SELECT c.id FROM contact_aliases a JOIN conversations c ON c.contact_id = a.contact_id
    WHERE a.kind = 'phone' AND a.value = ${matchingKeySql(number)} AND a.workspace_id = COALESCE(${workspaceId}, ${firstWorkspace}))`;
}

/** `phoneMatchingKey` as an SQL expression. */
export function matchingKeySql(number: Prisma.Sql): Prisma.Sql {
  const digits = sql`regexp_replace(${number}, ${'\\D'}, '', 'g')`;
  const cases = SPELLING_RULES.map(({ pattern: { source }, spellings: [key] }) => {
    return sql`WHEN ${digits} ~ ${source} THEN regexp_replace(${digits}, ${source}, ${key.replaceAll('$', '\\')})`;
  });
  return sql`CASE ${Prisma.join(cases, ' ')} ELSE ${digits} END`;
}

/**
 * Creates a contact for somebody new, with a conversation that `owner` owns. Undefined, and nothing is written, if one of the aliases, the
 * key or the workflow belongs to another contact.
 */
export async function createContact(
  db: Statements,
  workspaceId: string,
  { contact, statedAtMs }: Sender,
  owner: Pick<RecordingWorkflow, 'contactKey' | 'workflowId'>,
): Promise<ContactIds | undefined> {
  const { phone = null, businessScopedUserId: userId = null, name = null, username = null } = contact;
  try {
    const rows = await db.query<ContactIds>(sql`
      WITH contact AS (
        INSERT INTO contacts (workspace_id, contact_key, phone, business_scoped_user_id, name, username)
        VALUES (${workspaceId}::uuid, ${owner.contactKey}, ${phone}, ${userId}, ${name}, ${username})
        RETURNING id
      ), aliases AS (
        INSERT INTO contact_aliases (kind, value, workspace_id, contact_id, stated_at)
        SELECT a.kind::alias_kind, a.value, ${workspaceId}::uuid, contact.id, ${notInFuture(statedAtMs)}
        FROM contact, (VALUES ('phone', ${phoneKeyOf(contact.phone)}), ('user_id', ${userId})) a(kind, value)
        WHERE a.value IS NOT NULL
      )
      INSERT INTO conversations (workspace_id, contact_id, workflow_id) SELECT ${workspaceId}::uuid, id, ${owner.workflowId} FROM contact
      RETURNING id AS "conversationId", contact_id AS "contactId"`);
    return rows[0];
  } catch (error) {
    if (isUniqueViolation(error)) return undefined;
    throw error;
  }
}

/** Updates what is displayed: names, number and id. What is not given stays. */
export async function updateContact(db: Statements, contactId: string, contact: ContactIdentity): Promise<void> {
  const { phone = null, businessScopedUserId: userId = null, name = null, username = null } = contact;
  await db.query(sql`
    UPDATE contacts SET phone = COALESCE(${phone}, phone), business_scoped_user_id = COALESCE(${userId}, business_scoped_user_id),
      name = COALESCE(${name}, name), username = COALESCE(${username}, username)
    WHERE id = ${contactId}::uuid`);
}

export interface ReconcileOrder {
  workspaceId: string;
  sender: Sender;
  /** The owner of a new conversation, unless it owns another one. */
  workflow: RecordingWorkflow;
}

/** Each retry means that another transaction has succeeded. */
const ATTEMPTS = 20;

/** Another transaction has changed the contacts since they were read: start over. */
class ContactsChanged extends Error {
  override name = 'ContactsChanged';
}

/**
 * Brings the contacts in line with what a delivery says of its sender: creates, extends or merges them, and moves the number. Returns the id
 * of the sender's contact. @throws what PostgreSQL throws; a conflict only after 20 attempts
 */
export async function reconcileContact(db: Database, order: ReconcileOrder, identity: Identity): Promise<string> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await db.transaction((tx) => reconcile(tx, order, identity));
    } catch (error) {
      if (attempt >= ATTEMPTS || !(error instanceof ContactsChanged || isUniqueViolation(error) || isConflict(error))) throw error;
    }
  }
}

async function reconcile(tx: Statements, order: ReconcileOrder, identity: Identity): Promise<string> {
  const { workspaceId, sender } = order;
  const named = namedBy(sender);
  const resolved = resolveSender(named, await lockContacts(tx, order, named));
  const [contact, ...duplicates] = resolved.contacts;
  await removePhone(tx, resolved.formerOwners, named);
  if (!contact) return await createWithFreeOwner(tx, order, resolved, identity);
  for (const duplicate of duplicates) await mergeContact(tx, { from: duplicate.id, into: contact.id });
  const phone = phoneOf(named, resolved, sender.contact);
  await writeAliases(tx, { workspaceId, contactId: contact.id, named, phone });
  const { phone: _named, ...details } = sender.contact;
  await updateContact(tx, contact.id, { ...details, ...(phone ? { phone: phone.displayed } : {}) });
  if (!resolved.contacts.some(({ hasConversation }) => hasConversation)) await createConversation(tx, order, contact.id, identity);
  return contact.id;
}

function namedBy({ contact, statedAtMs }: Sender): NamedAliases {
  const { businessScopedUserId: userId, formerBusinessScopedUserId: formerUserId } = contact;
  const [phoneKey, formerPhoneKey] = [phoneKeyOf(contact.phone), phoneKeyOf(contact.formerPhone)];
  return {
    ...(phoneKey === null ? {} : { phoneKey }),
    ...(userId === undefined ? {} : { userId }),
    ...(formerPhoneKey === null ? {} : { formerPhoneKey }),
    ...(formerUserId === undefined ? {} : { formerUserId }),
    statedAtMs: notInFuture(statedAtMs).getTime(),
  };
}

function phoneKeyOf(phone: string | undefined): string | null {
  return phone === undefined ? null : phoneMatchingKey(phone);
}

/** A timestamp in the future would keep the number from moving until then. */
function notInFuture(atMs: number): Date {
  return new Date(Math.min(atMs, Date.now()));
}

const phoneKeysIn = ({ phoneKey, formerPhoneKey }: NamedAliases) => [phoneKey, formerPhoneKey].filter((key) => key !== undefined);
const userIdsIn = ({ userId, formerUserId }: NamedAliases) => [userId, formerUserId].filter((id) => id !== undefined);

type ContactRow = Omit<KnownContact, 'phoneKey'>;

/** The contacts that may be the sender's, locked in one order. @throws ContactsChanged if another one came to them during the wait */
async function lockContacts(tx: Statements, { workspaceId, workflow }: ReconcileOrder, named: NamedAliases): Promise<KnownContact[]> {
  const candidates = candidateIds(workspaceId, named, workflow.contactKey);
  const locked = await tx.query<{ id: string }>(sql`SELECT p.id FROM contacts p WHERE p.id IN (${candidates}) ORDER BY p.id FOR UPDATE`);
  const lockedIds = new Set(locked.map(({ id }) => id));
  const rows = await tx.query<ContactRow>(sql`
    SELECT p.id, p.phone, p.business_scoped_user_id AS "userId", EXISTS (SELECT 1 FROM conversations WHERE contact_id = p.id) AS "hasConversation",
      COALESCE((SELECT json_agg(json_build_object('kind', a.kind, 'value', a.value, 'statedAtMs', (extract(epoch FROM a.stated_at) * 1000)::float8))
        FROM contact_aliases a WHERE a.contact_id = p.id), '[]') AS aliases
    FROM contacts p WHERE p.id IN (${candidates}) ORDER BY p.id`);
  if (rows.some(({ id }) => !lockedIds.has(id))) throw new ContactsChanged();
  return rows.map((row) => ({ ...row, phoneKey: phoneKeyOf(row.phone ?? undefined) }));
}

/**
 * Contacts with a named alias; and from before there were aliases, the contact of the workflow's key (a worker of 0.1 may still write one),
 * and, where two contacts have an alias, all that display it.
 */
function candidateIds(workspaceId: string, named: NamedAliases, contactKey: string): Prisma.Sql {
  const [phoneKeys, userIds] = [phoneKeysIn(named), userIdsIn(named)];
  const isNamed = sql`a.workspace_id = ${workspaceId}::uuid
    AND (a.kind = 'phone' AND a.value = ANY(${phoneKeys}::text[]) OR a.kind = 'user_id' AND a.value = ANY(${userIds}::text[]))`;
  return sql`
    SELECT a.contact_id FROM contact_aliases a WHERE ${isNamed}
    UNION ALL SELECT id FROM contacts WHERE workspace_id = ${workspaceId}::uuid AND contact_key = ${contactKey}
    UNION ALL SELECT o.id FROM contacts o
      WHERE o.workspace_id = ${workspaceId}::uuid AND EXISTS (SELECT 1 FROM contact_aliases a WHERE ${isNamed} AND a.stated_at IS NULL)
        AND (o.phone = ANY(${phoneKeys.flatMap(phoneSpellings)}::text[]) OR o.business_scoped_user_id = ANY(${userIds}::text[]))`;
}

/** The number is somebody else's now: it is no longer displayed, and nothing is sent to it. */
async function removePhone(tx: Statements, contacts: KnownContact[], { phoneKey }: NamedAliases): Promise<void> {
  if (contacts.length === 0) return;
  const ids = contacts.map(({ id }) => id);
  await tx.query(
    sql`DELETE FROM contact_aliases WHERE kind = 'phone' AND value = ${phoneKey ?? null} AND contact_id = ANY(${ids}::uuid[])`,
  );
  await tx.query(sql`UPDATE contacts SET phone = NULL WHERE id = ANY(${ids}::uuid[])`);
}

interface Phone {
  key: string;
  statedAtMs: number | null;
  /** As WhatsApp spells it. */
  displayed: string;
}

/** The one number that the contact has from now on: the named one, or else the newest. */
function phoneOf(named: NamedAliases, { contacts, hasPhone }: ResolvedSender, { phone }: ContactIdentity): Phone | undefined {
  const { phoneKey: key, statedAtMs } = named;
  if (hasPhone && key !== undefined) return { key, statedAtMs, displayed: phone ?? key };
  const known = contacts.flatMap((contact) =>
    contact.aliases
      .filter(({ kind }) => kind === 'phone')
      .map((alias) => ({ key: alias.value, statedAtMs: alias.statedAtMs, displayed: contact.phone ?? alias.value })),
  );
  return known.sort((one, other) => (other.statedAtMs ?? 0) - (one.statedAtMs ?? 0))[0];
}

interface AliasUpdate {
  workspaceId: string;
  contactId: string;
  named: NamedAliases;
  phone: Phone | undefined;
}

async function writeAliases(tx: Statements, { workspaceId, contactId, named, phone }: AliasUpdate): Promise<void> {
  if (phone)
    await tx.query(sql`DELETE FROM contact_aliases WHERE contact_id = ${contactId}::uuid AND kind = 'phone' AND value <> ${phone.key}`);
  const aliases: KnownAlias[] = [
    ...(phone ? [{ kind: 'phone' as const, value: phone.key, statedAtMs: phone.statedAtMs }] : []),
    ...(named.userId === undefined ? [] : [{ kind: 'user_id' as const, value: named.userId, statedAtMs: named.statedAtMs }]),
  ];
  for (const { kind, value, statedAtMs } of aliases) {
    const written = await tx.query(sql`
      INSERT INTO contact_aliases (kind, value, workspace_id, contact_id, stated_at)
      VALUES (${kind}::alias_kind, ${value}, ${workspaceId}::uuid, ${contactId}::uuid, ${statedAtMs === null ? null : new Date(statedAtMs)})
      ON CONFLICT (kind, value, workspace_id) DO UPDATE SET stated_at = GREATEST(contact_aliases.stated_at, EXCLUDED.stated_at)
      WHERE contact_aliases.contact_id = EXCLUDED.contact_id
      RETURNING 1`);
    // A contact with this alias has been created since the look-up.
    if (written.length === 0) throw new ContactsChanged();
  }
}

/** Creates a contact although the recording workflow may own another conversation. */
async function createWithFreeOwner(
  tx: Statements,
  order: ReconcileOrder,
  { hasPhone }: ResolvedSender,
  identity: Identity,
): Promise<string> {
  const { phone, ...others } = order.sender.contact;
  const contact = { ...others, ...(hasPhone && phone !== undefined ? { phone } : {}) };
  const created = await createContact(tx, order.workspaceId, { ...order.sender, contact }, await chooseOwner(tx, order, identity));
  if (!created) throw new ContactsChanged();
  return created.contactId;
}

async function createConversation(tx: Statements, order: ReconcileOrder, contactId: string, identity: Identity): Promise<void> {
  const { workflowId } = await chooseOwner(tx, order, identity);
  await tx.query(sql`
    INSERT INTO conversations (workspace_id, contact_id, workflow_id)
    VALUES (${order.workspaceId}::uuid, ${contactId}::uuid, ${workflowId})`);
}

/**
 * The owner of a new conversation: the recording workflow; if that owns another one (of the number's previous owner), the workflow of the
 * business-scoped id; without an id, a workflow that only other workflows can find.
 */
async function chooseOwner(
  tx: Statements,
  { workspaceId, sender, workflow }: ReconcileOrder,
  identity: Identity,
): Promise<{ contactKey: string; workflowId: string }> {
  const { phoneNumberId, contactKey, workflowId } = workflow;
  const { businessScopedUserId } = sender.contact;
  const keys = [
    ...(businessScopedUserId === undefined ? [] : [identity.contactKey(phoneNumberId, { businessScopedUserId })]),
    randomBytes(12).toString('hex'),
  ];
  const owners = [
    { contactKey, workflowId },
    ...keys.map((key) => ({ contactKey: key, workflowId: conversationWorkflowId(phoneNumberId, key) })),
  ];
  for (const owner of owners) {
    const taken = await tx.query(sql`
      SELECT 1 FROM contacts WHERE workspace_id = ${workspaceId}::uuid AND contact_key = ${owner.contactKey}
      UNION ALL SELECT 1 FROM conversations WHERE workflow_id = ${owner.workflowId}`);
    if (taken.length === 0) return owner;
  }
  throw new Error('a random key is taken');
}
