/**
 * Contacts: who wrote, found by any alias. A message names a number, a business-scoped id, or both, in any order over time; all that one
 * person says leads to one contact.
 *
 * Invariants:
 * - an alias leads to one contact, and a contact has at most one number;
 * - a contact is made in one statement, and changed in one transaction that has locked it and the aliases that are named; an alias that
 *   somebody new was made with meanwhile is never taken away unseen;
 * - a contact has one conversation, and that one workflow as its owner, whichever workflow records.
 */
import { randomBytes } from 'node:crypto';
import { Prisma } from '../../prisma/generated/client';
import { type ContactIdentity, conversationWorkflowId } from '../../workflows/contract';
import { type Database, type Statements, sql } from '../platform/database';
import { isConflict, isUniqueViolation } from '../platform/database-errors';
import { phoneMatchingKey, phoneSpellings, SPELLING_RULES } from '../platform/phone';
import type { Identity } from './identity';
import { mergeContact } from './merge-contacts';
import { type Claim, judge, type KnownAlias, type KnownContact, type Verdict } from './same-person';

/** Who wrote, by what a delivery says. */
export interface Sender {
  contact: ContactIdentity;
  /** When it was said, in milliseconds by WhatsApp's clock. */
  saidAtMs: number;
}

/** The workflow that records. */
export interface RecordingWorkflow {
  phoneNumberId: string;
  contactKey: string;
  workflowId: string;
}

/** A contact and its conversation. */
export interface ContactIds {
  contactId: string;
  conversationId: string;
}

/**
 * Joins to `workspaces w` where a sender's number and id lead: `by_phone` and `by_user_id`. An alias that two contacts claim since before
 * there were aliases leads nowhere, so that the next message settles it.
 */
export function joinAliases({ phone, businessScopedUserId }: ContactIdentity): Prisma.Sql {
  return sql`
    LEFT JOIN contact_aliases by_phone ON by_phone.kind = 'phone' AND by_phone.value = ${phoneKeyOf(phone)}
      AND by_phone.workspace_id = w.id AND by_phone.said_at IS NOT NULL
    LEFT JOIN contact_aliases by_user_id ON by_user_id.kind = 'user_id' AND by_user_id.value = ${businessScopedUserId ?? null}
      AND by_user_id.workspace_id = w.id AND by_user_id.said_at IS NOT NULL`;
}

/** The newest conversation, in any workspace, with the person who has this phone number, in whatever spelling. */
export function conversationWith(number: Prisma.Sql): Prisma.Sql {
  return sql`(
    SELECT c.id FROM contact_aliases a JOIN conversations c ON c.contact_id = a.contact_id
    WHERE a.kind = 'phone' AND a.value = ${matchingKeySql(number)} ORDER BY c.last_message_at DESC NULLS LAST LIMIT 1)`;
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
 * Makes the contact of somebody whom nobody knows, with a conversation that `owner` owns. Undefined, and nothing is written, when one of the
 * aliases, the key or the workflow belongs to another contact already.
 */
export async function createContact(
  db: Statements,
  workspaceId: string,
  { contact, saidAtMs }: Sender,
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
        INSERT INTO contact_aliases (kind, value, workspace_id, contact_id, said_at)
        SELECT a.kind::alias_kind, a.value, ${workspaceId}::uuid, contact.id, ${pastTime(saidAtMs)}
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

/** Shows the newest names, id and spelling of the number; what is not said stays. */
export async function showContact(db: Statements, contactId: string, contact: ContactIdentity): Promise<void> {
  const { phone = null, businessScopedUserId: userId = null, name = null, username = null } = contact;
  await db.query(sql`
    UPDATE contacts SET phone = COALESCE(${phone}, phone), business_scoped_user_id = COALESCE(${userId}, business_scoped_user_id),
      name = COALESCE(${name}, name), username = COALESCE(${username}, username)
    WHERE id = ${contactId}::uuid`);
}

/** What is to be brought into the record. */
export interface SettleOrder {
  workspaceId: string;
  sender: Sender;
  /** It owns the conversation of somebody new, unless it owns another one. */
  workflow: RecordingWorkflow;
}

/** Each repetition means that another transaction has come through. */
const ATTEMPTS = 20;

/** Another transaction has changed the contacts between two looks: begin again. */
class ContactsChanged extends Error {
  override name = 'ContactsChanged';
}

/**
 * Brings what is said of a sender into the record: makes, extends or merges contacts, and moves the number. Returns the id of the person's
 * contact. @throws what PostgreSQL throws; a conflict only after 20 of them
 */
export async function settleContact(db: Database, order: SettleOrder, identity: Identity): Promise<string> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await db.transaction((tx) => settle(tx, order, identity));
    } catch (error) {
      if (attempt >= ATTEMPTS || !(error instanceof ContactsChanged || isUniqueViolation(error) || isConflict(error))) throw error;
    }
  }
}

async function settle(tx: Statements, order: SettleOrder, identity: Identity): Promise<string> {
  const claim = claimOf(order.sender);
  await lockAliases(tx, order.workspaceId, claim);
  const verdict = judge(claim, await lockContacts(tx, order, claim));
  const [contact, ...others] = verdict.person;
  await takePhoneFrom(tx, verdict.losePhone, claim);
  if (!contact) return await createOwned(tx, order, verdict, identity);
  const phone = phoneAfter(claim, verdict, order.sender.contact);
  for (const other of others) await mergeContact(tx, { from: other.id, into: contact.id });
  await writeAliases(tx, order.workspaceId, { contactId: contact.id, claim, phone });
  const { phone: _said, ...names } = order.sender.contact;
  await showContact(tx, contact.id, { ...names, ...(phone ? { phone: phone.shown } : {}) });
  if (!verdict.person.some(({ hasConversation }) => hasConversation)) await openConversation(tx, order, contact.id, identity);
  return contact.id;
}

function claimOf({ contact, saidAtMs }: Sender): Claim {
  const { businessScopedUserId: userId, formerBusinessScopedUserId: formerUserId } = contact;
  const [phoneKey, formerPhoneKey] = [phoneKeyOf(contact.phone), phoneKeyOf(contact.formerPhone)];
  return {
    ...(phoneKey === null ? {} : { phoneKey }),
    ...(userId === undefined ? {} : { userId }),
    ...(formerPhoneKey === null ? {} : { formerPhoneKey }),
    ...(formerUserId === undefined ? {} : { formerUserId }),
    saidAtMs: pastTime(saidAtMs).getTime(),
  };
}

function phoneKeyOf(phone: string | undefined): string | null {
  return phone === undefined ? null : phoneMatchingKey(phone);
}

/** A clock that goes ahead must not hold a number for the time to come. */
function pastTime(atMs: number): Date {
  return new Date(Math.min(atMs, Date.now()));
}

const phoneKeysOf = ({ phoneKey, formerPhoneKey }: Claim) => [phoneKey, formerPhoneKey].filter((key) => key !== undefined);
const userIdsOf = ({ userId, formerUserId }: Claim) => [userId, formerUserId].filter((id) => id !== undefined);

/** Whoever says something of the same numbers and ids waits, also where no row stands yet. All lock in one order, so none waits in a circle. */
async function lockAliases(tx: Statements, workspaceId: string, claim: Claim): Promise<void> {
  const names = [...phoneKeysOf(claim).map((key) => `phone ${key}`), ...userIdsOf(claim).map((id) => `user_id ${id}`)];
  await tx.query(sql`
    SELECT pg_advisory_xact_lock(l.key)
    FROM (SELECT DISTINCT hashtextextended(${workspaceId} || ' ' || name, 0) AS key FROM unnest(${names}::text[]) name ORDER BY key) l`);
}

interface ContactRow {
  id: string;
  phone: string | null;
  userId: string | null;
  hasConversation: boolean;
  aliases: KnownAlias[];
}

/** The contacts that a claim may be about, locked. @throws ContactsChanged when one of them came to it while we waited for the others */
async function lockContacts(tx: Statements, { workspaceId, workflow }: SettleOrder, claim: Claim): Promise<KnownContact[]> {
  const found = candidates(workspaceId, claim, workflow.contactKey);
  const locked = await tx.query<{ id: string }>(sql`SELECT p.id FROM contacts p WHERE p.id IN (${found}) ORDER BY p.id FOR UPDATE`);
  const lockedIds = new Set(locked.map(({ id }) => id));
  const rows = await tx.query<ContactRow>(sql`
    SELECT p.id, p.phone, p.business_scoped_user_id AS "userId", EXISTS (SELECT 1 FROM conversations WHERE contact_id = p.id) AS "hasConversation",
      COALESCE((SELECT json_agg(json_build_object('kind', a.kind, 'value', a.value, 'saidAtMs', (extract(epoch FROM a.said_at) * 1000)::float8))
        FROM contact_aliases a WHERE a.contact_id = p.id), '[]') AS aliases
    FROM contacts p WHERE p.id IN (${found}) ORDER BY p.id`);
  if (rows.some(({ id }) => !lockedIds.has(id))) throw new ContactsChanged();
  return rows.map(({ phone, ...row }) => ({ ...row, phone, phoneKey: phoneKeyOf(phone ?? undefined) }));
}

/**
 * Those with an alias of the claim. Beside them what stands there from before there were aliases: the contact of the workflow's key, which a
 * worker of then may still write, and all that show what the claim names, where two have claimed it.
 */
function candidates(workspaceId: string, claim: Claim, contactKey: string): Prisma.Sql {
  const [phoneKeys, userIds] = [phoneKeysOf(claim), userIdsOf(claim)];
  const named = sql`a.workspace_id = ${workspaceId}::uuid
    AND (a.kind = 'phone' AND a.value = ANY(${phoneKeys}::text[]) OR a.kind = 'user_id' AND a.value = ANY(${userIds}::text[]))`;
  return sql`
    SELECT a.contact_id FROM contact_aliases a WHERE ${named}
    UNION ALL SELECT id FROM contacts WHERE workspace_id = ${workspaceId}::uuid AND contact_key = ${contactKey}
    UNION ALL SELECT o.id FROM contacts o
      WHERE o.workspace_id = ${workspaceId}::uuid AND EXISTS (SELECT 1 FROM contact_aliases a WHERE ${named} AND a.said_at IS NULL)
        AND (o.phone = ANY(${phoneKeys.flatMap(phoneSpellings)}::text[]) OR o.business_scoped_user_id = ANY(${userIds}::text[]))`;
}

/** They are somebody else's by now: neither is the number shown, nor is anything sent to it. */
async function takePhoneFrom(tx: Statements, contacts: KnownContact[], { phoneKey }: Claim): Promise<void> {
  if (contacts.length === 0) return;
  const ids = contacts.map(({ id }) => id);
  await tx.query(
    sql`DELETE FROM contact_aliases WHERE kind = 'phone' AND value = ${phoneKey ?? null} AND contact_id = ANY(${ids}::uuid[])`,
  );
  await tx.query(sql`UPDATE contacts SET phone = NULL WHERE id = ANY(${ids}::uuid[])`);
}

interface Phone {
  key: string;
  saidAtMs: number | null;
  shown: string;
}

/** The one number that the person has from now on: the one that was named, else the newest that is known. */
function phoneAfter(claim: Claim, { person, takesPhone }: Verdict, { phone }: ContactIdentity): Phone | undefined {
  if (takesPhone && claim.phoneKey !== undefined) return { key: claim.phoneKey, saidAtMs: claim.saidAtMs, shown: phone ?? claim.phoneKey };
  const known = person.flatMap((contact) =>
    contact.aliases
      .filter(({ kind }) => kind === 'phone')
      .map(({ value, saidAtMs }) => ({ key: value, saidAtMs, shown: contact.phone ?? value })),
  );
  return known.sort((one, other) => (other.saidAtMs ?? 0) - (one.saidAtMs ?? 0))[0];
}

async function writeAliases(
  tx: Statements,
  workspaceId: string,
  { contactId, claim, phone }: { contactId: string; claim: Claim; phone: Phone | undefined },
): Promise<void> {
  if (phone)
    await tx.query(sql`DELETE FROM contact_aliases WHERE contact_id = ${contactId}::uuid AND kind = 'phone' AND value <> ${phone.key}`);
  const aliases: KnownAlias[] = [
    ...(phone ? [{ kind: 'phone' as const, value: phone.key, saidAtMs: phone.saidAtMs }] : []),
    ...(claim.userId === undefined ? [] : [{ kind: 'user_id' as const, value: claim.userId, saidAtMs: claim.saidAtMs }]),
  ];
  for (const { kind, value, saidAtMs } of aliases) {
    const written = await tx.query(sql`
      INSERT INTO contact_aliases (kind, value, workspace_id, contact_id, said_at)
      VALUES (${kind}::alias_kind, ${value}, ${workspaceId}::uuid, ${contactId}::uuid, ${saidAtMs === null ? null : new Date(saidAtMs)})
      ON CONFLICT (kind, value, workspace_id) DO UPDATE SET said_at = GREATEST(contact_aliases.said_at, EXCLUDED.said_at)
      WHERE contact_aliases.contact_id = EXCLUDED.contact_id
      RETURNING 1`);
    // Somebody new was written with it a moment ago, without waiting for us.
    if (written.length === 0) throw new ContactsChanged();
  }
}

/** A contact of somebody new, also where the workflow that records has another conversation. */
async function createOwned(tx: Statements, order: SettleOrder, { takesPhone }: Verdict, identity: Identity): Promise<string> {
  const { phone, ...others } = order.sender.contact;
  const contact = { ...others, ...(takesPhone && phone !== undefined ? { phone } : {}) };
  const created = await createContact(tx, order.workspaceId, { ...order.sender, contact }, await freeOwner(tx, order, identity));
  if (!created) throw new ContactsChanged();
  return created.contactId;
}

async function openConversation(tx: Statements, order: SettleOrder, contactId: string, identity: Identity): Promise<void> {
  const { workflowId } = await freeOwner(tx, order, identity);
  await tx.query(sql`
    INSERT INTO conversations (workspace_id, contact_id, workflow_id)
    VALUES (${order.workspaceId}::uuid, ${contactId}::uuid, ${workflowId})`);
}

/**
 * Who is to own a new conversation: the workflow that records; where that has another one (the number had another owner before), the
 * workflow of the business-scoped id; and where there is none, one that only other workflows hand messages to.
 */
async function freeOwner(
  tx: Statements,
  { workspaceId, sender, workflow }: SettleOrder,
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
