/** Stores inbound messages in the conversations that they belong to. Idempotent: every statement may run twice. */
import { Prisma } from '../../prisma/generated/client';
import { type ContactIdentity, type InboundMessage, type MessagesReceived, readConversationWorkflowId } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';
import { isForeignKeyViolation } from '../platform/database-errors';
import { attentionAlert } from './alerts';
import { withReason } from './attention';
import { createContact, joinAliases, type RecordingWorkflow, reconcileContact, type Sender, updateContact } from './contacts';
import type { Identity } from './identity';
import { currentConversation } from './merged-conversations';
import { effectiveMode } from './modes';
import { recordOwnerMessages } from './owner-messages';
import { parkMessages } from './parked-messages';
import { newestFirst } from './timeline';
import { type AnswerLimits, attentionFor, immediateOutcome, RECENT_TEXT_LENGTH, type RecentTalk } from './unanswered';
import { isWorkspaceOf } from './workspaces';

/** What a workflow hands on to be recorded. */
export interface RecordOrder extends RecordingWorkflow {
  /** Each knows its own contact. */
  deliveries: MessagesReceived[];
}

/** Messages of a person whose conversation another workflow owns. They are not stored here, but handed to that workflow. */
export interface Elsewhere {
  /** The owner, as it is started. */
  phoneNumberId: string;
  contactKey: string;
  workflowId: string;
  /** Our ids of the messages, in their order. */
  messageIds: string[];
}

export type RecordedDeliveries =
  | { kind: 'unknown_number' }
  | {
      kind: 'recorded';
      /** The workflow's own conversation; undefined when nothing was for it. */
      own?: { context: KnownContext; answerableIds: string[] };
      elsewhere: Elsewhere[];
      /** Whether the workflow owns a conversation at all. */
      ownsConversation: boolean;
    };

/** The settings of a workspace, and what is known of the person who wrote. */
export interface InboundContext {
  workspaceId: string;
  chatbotEnabled: boolean;
  aiEnabled: boolean;
  providerChain: string[];
  model: string | null;
  quietMs: number;
  quietMaxMs: number;
  sessionTimeoutMs: number;
  sendConfirmMs: number;
  onNewMessage: string;
  ownerPauseMs: number;
  conversationId: string | null;
  workflowId: string | null;
  mode: string | null;
  needsAttention: boolean | null;
  contactId: string | null;
  contactName: string | null;
  username: string | null;
  phone: string | null;
  /** Where the number and the id that were named lead. */
  phoneContactId: string | null;
  userIdContactId: string | null;
  /** The id is older than the number, so it may belong to the previous one. If both are named together, this has to be corrected. */
  isIdOlder: boolean | null;
  /** Null for somebody without a conversation. */
  recentlySaid: RecentTalk['said'] | null;
  recentReplies: number;
}

/** The context of somebody who has a conversation. */
export interface KnownContext extends InboundContext {
  conversationId: string;
  workflowId: string;
}

/** Whether a workspace has a model that can be called. */
type HasModel = (context: InboundContext) => boolean;

/** Length of a preview in the list of conversations. */
export const PREVIEW_LENGTH = 100;

/** The contact was merged into another one since it was looked up: start over. */
class ContactMerged extends Error {
  override name = 'ContactMerged';
}

/** Each retry means that another transaction has succeeded. */
const ATTEMPTS = 10;

/** What recording needs besides the messages. */
export interface RecordingRules {
  identity: Identity;
  answerLimits: AnswerLimits;
  hasModel: HasModel;
}

/**
 * Stores the messages of the workflow's own conversation, and says where the others belong. Messages for a number that no workspace has are
 * parked.
 */
export async function recordDeliveries(db: Database, order: RecordOrder, rules: RecordingRules): Promise<RecordedDeliveries> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await tryToRecord(db, order, rules);
    } catch (error) {
      // The foreign key: the conversation was merged into another one since it was looked up.
      if (attempt >= ATTEMPTS || !(error instanceof ContactMerged || isForeignKeyViolation(error))) throw error;
    }
  }
}

async function tryToRecord(db: Database, order: RecordOrder, rules: RecordingRules): Promise<RecordedDeliveries> {
  const own: InboundMessage[] = [];
  let ownContext: KnownContext | undefined;
  const elsewhere: Elsewhere[] = [];
  for (const { sender, messages } of bySender(order.deliveries)) {
    const context = await contextOf(db, order, sender, rules);
    if (!context) {
      for (const delivery of order.deliveries) await parkMessages(db, { ...order, ...delivery });
      return { kind: 'unknown_number' };
    }
    if (context.workflowId === order.workflowId) {
      own.push(...messages);
      ownContext = context;
    } else {
      await releaseMessages(db, order.workflowId, context);
      elsewhere.push(placeOf(context.workflowId, messages));
    }
  }
  if (!ownContext) return { kind: 'recorded', elsewhere, ownsConversation: await ownsConversation(db, order.workflowId) };
  own.sort((one, other) => one.sentAtMs - other.sentAtMs);
  const state = { ...ownContext, hasModel: rules.hasModel(ownContext) };
  const isOwners = (message: InboundMessage) => message.fromBusiness !== undefined;
  const customers = own.filter((message) => !isOwners(message));
  const { answerableIds, asksForPerson } = await insertMessages(db, state, { ...order, messages: customers }, rules.answerLimits);
  if (customers.length < own.length)
    return await recordOwners(db, ownContext, { ...order, messages: own.filter(isOwners) }, rules, elsewhere);
  const context = asksForPerson ? { ...ownContext, needsAttention: true } : ownContext;
  return { kind: 'recorded', own: { context, answerableIds: isSilent(context) ? [] : answerableIds }, elsewhere, ownsConversation: true };
}

/** After the owner has written, the person has the conversation; what is still open by then is told with its state. */
async function recordOwners(
  db: Database,
  context: KnownContext,
  order: { phoneNumberId: string; workflowId: string; messages: InboundMessage[] },
  rules: RecordingRules,
  elsewhere: Elsewhere[],
): Promise<RecordedDeliveries> {
  const { conversationId, workspaceId, ownerPauseMs } = context;
  await recordOwnerMessages(db, { ...order, conversationId, workspaceId, ownerPauseMs });
  const current = (await findContextOf(db, conversationId, rules.answerLimits)) ?? context;
  const open = isSilent(current)
    ? []
    : await db.query<{ id: string }>(
        sql`SELECT m.id FROM messages m WHERE ${isOpenFor(conversationId, order.workflowId)} ORDER BY m.position`,
      );
  return { kind: 'recorded', own: { context: current, answerableIds: open.map(({ id }) => id) }, elsewhere, ownsConversation: true };
}

/** Whether a person answers, or nobody: what is open waits. */
export function isSilent({ mode }: InboundContext): boolean {
  return mode === 'human' || mode === 'paused';
}

/** Groups consecutive deliveries that name the same sender: usually all of them. */
function bySender(deliveries: MessagesReceived[]): { sender: Sender; messages: InboundMessage[] }[] {
  const groups: { sender: Sender; messages: InboundMessage[] }[] = [];
  for (const { contact, messages } of deliveries.filter((delivery) => delivery.messages.length > 0)) {
    const statedAtMs = Math.max(...messages.map(({ sentAtMs }) => sentAtMs));
    const last = groups.at(-1);
    if (last && namesTheSame(last.sender.contact, contact)) {
      last.sender = { contact: { ...last.sender.contact, ...contact }, statedAtMs: Math.max(last.sender.statedAtMs, statedAtMs) };
      last.messages.push(...messages);
    } else groups.push({ sender: { contact, statedAtMs }, messages: [...messages] });
  }
  return groups;
}

function namesTheSame(one: ContactIdentity, other: ContactIdentity): boolean {
  const names = ['phone', 'businessScopedUserId', 'formerPhone', 'formerBusinessScopedUserId'] as const;
  return names.every((name) => one[name] === other[name]);
}

/** The workspace and the sender's conversation, which is created if necessary. Undefined if no workspace has the number. */
export async function contextOf(
  db: Database,
  workflow: RecordingWorkflow,
  sender: Sender,
  { identity, answerLimits }: RecordingRules,
): Promise<KnownContext | undefined> {
  const { phoneNumberId } = workflow;
  const { contact } = sender;
  const context = await findInboundContext(db, phoneNumberId, contact, answerLimits);
  if (!context) return undefined;
  if (knowsSender(context, contact)) {
    if (context.contactId !== null && hasNewDetails(context, contact)) await updateContact(db, context.contactId, detailsOf(contact));
    return context;
  }
  const { workspaceId } = context;
  if (context.contactId === null && !replacesAnything(contact)) {
    const created = await createContact(db, workspaceId, sender, workflow);
    if (created) return { ...context, ...created, workflowId: workflow.workflowId };
  }
  const contactId = await reconcileContact(db, { workspaceId, sender, workflow }, identity);
  const known = await findInboundContext(db, phoneNumberId, { contactId }, answerLimits);
  if (!known || !hasConversation(known)) throw new ContactMerged();
  return known;
}

function hasConversation(context: InboundContext): context is KnownContext {
  return context.conversationId !== null && context.workflowId !== null;
}

/** Whether all names of the sender lead to the same contact already. */
function knowsSender(context: InboundContext, contact: ContactIdentity): context is KnownContext {
  if (!hasConversation(context) || context.isIdOlder || replacesAnything(contact)) return false;
  const leadsThere = (value: string | undefined, contactId: string | null) => value === undefined || contactId === context.contactId;
  return leadsThere(contact.phone, context.phoneContactId) && leadsThere(contact.businessScopedUserId, context.userIdContactId);
}

function replacesAnything({ formerPhone, formerBusinessScopedUserId }: ContactIdentity): boolean {
  return formerPhone !== undefined || formerBusinessScopedUserId !== undefined;
}

/** Whether the delivery has another name, or spelling of the number, than is displayed. */
function hasNewDetails(context: InboundContext, { name, username, phone }: ContactIdentity): boolean {
  const isNews = (value: string | undefined, recorded: string | null) => value !== undefined && value !== recorded;
  return isNews(name, context.contactName) || isNews(username, context.username) || isNews(phone, context.phone);
}

/** Without the id: it is known, and a newer one may be displayed. */
function detailsOf({ businessScopedUserId: _known, ...details }: ContactIdentity): ContactIdentity {
  return details;
}

/** The contact that a number and an id lead to, or one by its own id. */
type WhichContact = ContactIdentity | { contactId: string };

/** The workspace with its settings and, if the contact is known, the conversation. Undefined if no workspace has the number. */
async function findInboundContext(
  db: Database,
  phoneNumberId: string,
  which: WhichContact,
  { repliesPerHour }: AnswerLimits,
): Promise<InboundContext | undefined> {
  const [aliases, contactId] =
    'contactId' in which
      ? [joinAliases({}), sql`${which.contactId}::uuid`]
      : [joinAliases(which), sql`COALESCE(by_phone.contact_id, by_user_id.contact_id)`];
  const rows = await db.query<InboundContext>(sql`
    SELECT w.id AS "workspaceId", COALESCE(s.chatbot_enabled, false) AS "chatbotEnabled", COALESCE(s.ai_enabled, false) AS "aiEnabled",
      COALESCE(s.provider_chain, '{}') AS "providerChain", s.model,
      COALESCE(s.quiet_ms, 3000) AS "quietMs", COALESCE(s.quiet_max_ms, 15000) AS "quietMaxMs",
      COALESCE(s.session_timeout_ms, 1800000) AS "sessionTimeoutMs", COALESCE(s.send_confirm_ms, 60000) AS "sendConfirmMs",
      COALESCE(s.on_new_message, 'finish') AS "onNewMessage", COALESCE(s.owner_pause_ms, 1800000) AS "ownerPauseMs",
      c.id AS "conversationId", c.workflow_id AS "workflowId", ${effectiveMode}::text AS mode, c.needs_attention AS "needsAttention",
      p.id AS "contactId", p.name AS "contactName", p.username, p.phone,
      by_phone.contact_id AS "phoneContactId", by_user_id.contact_id AS "userIdContactId", by_user_id.stated_at < by_phone.stated_at AS "isIdOlder",
      ${recentlySaid()} AS "recentlySaid", ${recentReplies(repliesPerHour)} AS "recentReplies"
    FROM workspaces w
    LEFT JOIN chatbot_settings s ON s.workspace_id = w.id
    ${aliases}
    LEFT JOIN contacts p ON p.id = ${contactId}
    LEFT JOIN conversations c ON c.contact_id = p.id
    WHERE ${isWorkspaceOf(phoneNumberId)}`);
  return rows[0];
}

/** The context of a conversation, or of the one that it was merged into. Undefined if there is none. */
export async function findContextOf(db: Database, conversationId: string, limits: AnswerLimits): Promise<KnownContext | undefined> {
  const rows = await db.query<{ contactId: string; phoneNumberId: string }>(sql`
    SELECT c.contact_id AS "contactId", w.kapso_phone_number_id AS "phoneNumberId" FROM conversations c JOIN workspaces w ON w.id = c.workspace_id
    WHERE c.id = ${currentConversation(conversationId)}`);
  const [row] = rows;
  const context = row && (await findInboundContext(db, row.phoneNumberId, { contactId: row.contactId }, limits));
  return context && hasConversation(context) ? context : undefined;
}

/** How many of the newest messages are compared with a new one. */
const COMPARED_MESSAGES = 30;

/** What the person of conversation `c` wrote within the last hour. */
function recentlySaid(): Prisma.Sql {
  return sql`(
    SELECT json_agg(json_build_object('kind', n.kind, 'text', left(n.text, ${RECENT_TEXT_LENGTH}), 'outcome', n.outcome) ORDER BY ${newestFirst('n')})
    FROM (SELECT m.* FROM messages m WHERE m.conversation_id = c.id ORDER BY ${newestFirst('m')} LIMIT ${COMPARED_MESSAGES}) n
    WHERE n.direction = 'inbound' AND n.created_at > now() - interval '1 hour')`;
}

/**
 * The number of replies in conversation `c` within the last hour; messages that wait for a model count as one more. Counts only if the last
 * hour has enough messages at all, and reads a bounded number: enough even if only every tenth message gets a reply.
 */
function recentReplies(most: number): Prisma.Sql {
  const newest = sql`FROM messages m WHERE m.conversation_id = c.id ORDER BY ${newestFirst('m')}`;
  return sql`CASE WHEN (SELECT m.created_at ${newest} OFFSET ${Math.max(0, most - 2)} LIMIT 1) > now() - interval '1 hour' THEN (
      SELECT count(*) FILTER (WHERE n.reply_to_id IS NOT NULL AND n.status <> 'failed' AND n.created_at > now() - interval '1 hour')
        + max(CASE WHEN n.direction = 'inbound' AND n.outcome IS NULL AND n.turn_id IS NULL THEN 1 ELSE 0 END)
      FROM (SELECT m.* ${newest} LIMIT ${10 * most + 100}) n)::int
    ELSE 0 END`;
}

/** Gives the owner the messages that this workflow stored in the conversation and has not put into a turn yet. */
async function releaseMessages(db: Database, workflowId: string, { conversationId, workflowId: owner }: KnownContext): Promise<void> {
  await db.query(sql`
    UPDATE messages SET workflow_id = ${owner}
    WHERE conversation_id = ${conversationId}::uuid AND direction = 'inbound' AND outcome IS NULL AND turn_id IS NULL AND workflow_id = ${workflowId}`);
}

function placeOf(ownerId: string, messages: InboundMessage[]): Elsewhere {
  const owner = readConversationWorkflowId(ownerId);
  return { ...owner, workflowId: ownerId, messageIds: messages.map(({ id }) => id) };
}

async function ownsConversation(db: Database, workflowId: string): Promise<boolean> {
  return (await db.query(sql`SELECT 1 FROM conversations WHERE workflow_id = ${workflowId}`)).length > 0;
}

/**
 * Writes the messages that are new, and returns the ids of all in the conversation that still want a reply. Among them
 * are those of an earlier run of this step whose end was lost, and those that a terminated workflow left behind.
 */
async function insertMessages(
  db: Database,
  context: KnownContext & { hasModel: boolean },
  order: { phoneNumberId: string; workflowId: string; messages: InboundMessage[] },
  limits: AnswerLimits,
): Promise<{ answerableIds: string[]; asksForPerson: boolean }> {
  if (order.messages.length === 0) return { answerableIds: [], asksForPerson: false };
  const { conversationId, workspaceId } = context;
  const state = { ...context, recent: { said: context.recentlySaid ?? [], replies: context.recentReplies } };
  const input = order.messages.map((message, index) => ({
    ord: index,
    id: message.id,
    provider_message_id: message.providerMessageId,
    kind: message.kind,
    text: message.text ?? null,
    payload: message.payload ?? null,
    // The time in an operator's signal or an old dead letter may be in the future.
    occurred_at: new Date(Math.min(message.sentAtMs, Date.now())).toISOString(),
    outcome: immediateOutcome(message, state, limits),
  }));
  const { columns, alerts } = attentionOf(input, conversationId, limits);
  const ids = order.messages.map((message) => message.providerMessageId);
  // What this statement inserts and what stood there before it are disjoint: a statement does not see its own rows.
  const rows = await db.query<FoundMessage>(sql`
    WITH inserted AS (
      INSERT INTO messages (id, workspace_id, conversation_id, workflow_id, direction, status, provider_message_id, kind, text, payload, occurred_at,
        timeline_at, outcome)
      SELECT x.id, ${workspaceId}::uuid, ${conversationId}::uuid, ${order.workflowId}, 'inbound', 'received', x.provider_message_id, x.kind,
        x.text, x.payload, x.occurred_at, CASE WHEN x.outcome IN ('history', 'too_old') THEN x.occurred_at END, x.outcome::message_outcome
      FROM jsonb_to_recordset(${JSON.stringify(input)}::jsonb)
        AS x(ord int, id uuid, provider_message_id text, kind text, text text, payload jsonb, occurred_at timestamptz, outcome text)
      ORDER BY x.ord
      ON CONFLICT DO NOTHING
      RETURNING id, position, outcome
    ), released AS (
      UPDATE parked_messages SET released_at = now()
      WHERE phone_number_id = ${order.phoneNumberId} AND provider_message_id = ANY(${ids}) AND released_at IS NULL
    ), said AS (
      SELECT count(*) AS count FROM inserted WHERE outcome IS NULL OR outcome NOT IN ('history', 'group')
    ), noted AS (
      UPDATE conversations c SET unread_count = unread_count + (SELECT count FROM said), last_message_at = now(),
        last_message_preview = ${preview(order.messages.findLast(isForUs) ?? order.messages.at(-1))}, updated_at = now(),
        waiting_since = CASE WHEN ${isSilent(context)} AND EXISTS (SELECT FROM inserted WHERE outcome IS NULL)
          THEN COALESCE(c.waiting_since, now()) ELSE c.waiting_since END${columns}
      WHERE id = ${conversationId}::uuid AND ((SELECT count FROM said) > 0 OR last_message_at IS NULL)
    )${alerts}
    SELECT id, position, outcome::text, true AS "isNew" FROM inserted
    UNION ALL
    SELECT id, position, NULL, false FROM messages m WHERE ${isOpenFor(conversationId, order.workflowId)}
    ORDER BY position`);
  const asksForPerson = rows.some(({ outcome }) => attentionFor(outcome, limits) !== undefined);
  if (rows.filter((row) => row.isNew).length === order.messages.length) return { answerableIds: openIds(rows), asksForPerson };
  // Some already existed, perhaps from an earlier attempt that committed after this statement had begun, so that it could not see
  // them. The next statement can.
  const open = await db.query<FoundMessage>(sql`
    SELECT id, NULL AS outcome, false AS "isNew" FROM messages m WHERE ${isOpenFor(conversationId, order.workflowId)} ORDER BY position`);
  return { answerableIds: openIds(open), asksForPerson };
}

/** A message that was just inserted, or that still needs a reply. */
interface FoundMessage {
  id: string;
  outcome: string | null;
  isNew: boolean;
}

function openIds(rows: FoundMessage[]): string[] {
  return rows.filter(({ outcome }) => outcome === null).map(({ id }) => id);
}

/** What a statement does because of the messages that it inserts: columns of conversation `c` to set, and queries that raise the alerts. */
function attentionOf(
  messages: { outcome: string | null }[],
  conversationId: string,
  limits: AnswerLimits,
): { columns: Prisma.Sql; alerts: Prisma.Sql } {
  const outcomes = [...new Set(messages.map(({ outcome }) => outcome))];
  const reasons = outcomes.flatMap((outcome) => attentionFor(outcome, limits) ?? []);
  if (reasons.length === 0) return { columns: Prisma.empty, alerts: Prisma.empty };
  // A message that was stored before does not request attention again.
  const isInserted = (kind: string) => sql`EXISTS (SELECT FROM inserted WHERE outcome = ${kind}::message_outcome)`;
  const attention = reasons.reduce(
    (before, reason) => sql`CASE WHEN ${isInserted(reason.kind)} THEN ${withReason(before, reason)} ELSE ${before} END`,
    sql`c.attention`,
  );
  const raised = Prisma.join(
    reasons.map(({ kind }) => isInserted(kind)),
    ' OR ',
  );
  const alerts = reasons.map((reason) => {
    const alert = attentionAlert(reason, sql`SELECT ${conversationId}::text AS id WHERE ${isInserted(reason.kind)}`);
    return sql`, ${Prisma.raw(`${reason.kind}_alert`)} AS (${alert})`;
  });
  return {
    columns: sql`, attention = ${attention}, needs_attention = c.needs_attention OR ${raised}`,
    alerts: Prisma.join(alerts, ' '),
  };
}

/**
 * Messages `m` that this workflow recorded and that still need a reply: without an outcome, and in no turn, or in one
 * whose draft was not sent, or only in part (its workflow was terminated). Messages of the person's other workflow are left to it.
 */
export function isOpenFor(conversationId: string, workflowId: string): Prisma.Sql {
  return sql`m.conversation_id = ${conversationId}::uuid AND m.direction = 'inbound' AND m.outcome IS NULL AND m.workflow_id = ${workflowId}
    AND (m.turn_id IS NULL OR (SELECT r.author IS DISTINCT FROM 'person' AND r.status = 'pending' OR r.status IN ('sent', 'delivered', 'read') AND ${isRestWaiting}
      FROM messages r WHERE r.reply_to_id = m.turn_id))`;
}

/** Whether parts of the reply `r` wait and none is being sent. An aggregate, because PostgreSQL would read the whole table for EXISTS. */
const isRestWaiting = sql`(
  SELECT bool_or(p.status = 'pending') AND NOT bool_or(p.status IN ('sending', 'unconfirmed')) FROM messages p WHERE p.part_of_id = r.id)`;

/** Whether the message is new and private: neither imported history nor sent in a group. */
function isForUs({ isHistory, isInGroup }: InboundMessage): boolean {
  return !isHistory && !isInGroup;
}

function preview(message: InboundMessage | undefined): string {
  return (message?.text ?? `[${message?.kind ?? 'message'}]`).slice(0, PREVIEW_LENGTH).toWellFormed();
}
