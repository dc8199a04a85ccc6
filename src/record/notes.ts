/** What people do in a conversation without writing to the customer: write internal notes, and mark it as read. */
import { type Database, type Statements, sql } from '../platform/database';
import { type Actor, recordAudit } from './audit';
import { currentConversation } from './merged-conversations';
import { findMessage, type SingleMessage } from './messages';
import type { Scope } from './scope';

/** The kind of an internal note in the timeline. Never sent; the model reads it only if `payload.forModel` is true. */
export const INTERNAL_NOTE = 'internal_note';

export interface NewNote {
  id: string;
  conversationId: string;
  /** Only a conversation of this workspace; undefined: any. */
  workspaceId: Scope;
  text: string;
  /** Who writes it. */
  actor: Actor;
  /** Whether the model reads it. */
  forModel: boolean;
}

/** `isOther`: the id already belongs to a different note. */
export type WrittenNote = { note: SingleMessage; isOther: boolean };

/** Writes the note, or finds the one with this id. Undefined if there is no such conversation. */
export async function writeNote(db: Database, note: NewNote): Promise<WrittenNote | undefined> {
  const place = await db.transaction((transaction) => insertNote(transaction, note));
  if (!place) return undefined;
  const written = await findMessage(db, note.id, note.workspaceId);
  if (!written) throw new Error(`the note ${note.id} is not in the database`);
  const isSame = written.conversationId === place.conversationId && written.text === note.text && isFor(written.payload, note.forModel);
  return { note: written, isOther: !isSame };
}

interface NotePlace {
  conversationId: string;
  workspaceId: string;
  isNew: boolean;
}

async function insertNote(
  transaction: Statements,
  { id, conversationId, workspaceId, text, actor, forModel }: NewNote,
): Promise<NotePlace | undefined> {
  const [place] = await transaction.query<NotePlace>(sql`
    WITH conversation AS (
      SELECT c.id, c.workspace_id FROM conversations c
      WHERE c.id = ${currentConversation(conversationId)} AND ${isIn(workspaceId)}
    ), written AS (
      INSERT INTO messages (id, workspace_id, conversation_id, direction, kind, text, payload, status)
      SELECT ${id}::uuid, workspace_id, id, 'note', ${INTERNAL_NOTE}, ${text}, ${JSON.stringify({ author: actor.name, forModel })}::jsonb, 'received'
      FROM conversation ON CONFLICT (id) DO NOTHING RETURNING 1
    )
    SELECT id AS "conversationId", workspace_id AS "workspaceId", EXISTS (SELECT FROM written) AS "isNew" FROM conversation`);
  if (place?.isNew) {
    const subject = `conversation ${place.conversationId}`;
    await recordAudit(transaction, {
      actor,
      workspaceId: place.workspaceId,
      action: 'note.added',
      subject,
      after: { noteId: id, forModel },
    });
  }
  return place;
}

function isFor(payload: SingleMessage['payload'], forModel: boolean): boolean {
  return typeof payload === 'object' && payload !== null && !Array.isArray(payload) && payload.forModel === forModel;
}

/** Sets the number of unread messages to 0. False if there is no such conversation. */
export async function markRead(
  db: Database,
  { conversationId, workspaceId, actor }: { conversationId: string; workspaceId: Scope; actor: Actor },
): Promise<boolean> {
  return await db.transaction(async (transaction) => {
    const [read] = await transaction.query<{ id: string; workspaceId: string; unreadCount: number }>(sql`
      UPDATE conversations c SET unread_count = 0, updated_at = now()
      FROM (SELECT c.id, c.unread_count FROM conversations c WHERE c.id = ${currentConversation(conversationId)} AND ${isIn(workspaceId)} FOR UPDATE) o
      WHERE c.id = o.id RETURNING c.id, c.workspace_id AS "workspaceId", o.unread_count AS "unreadCount"`);
    if (read && read.unreadCount > 0) {
      const change = { before: { unreadCount: read.unreadCount }, after: { unreadCount: 0 } };
      const subject = `conversation ${read.id}`;
      await recordAudit(transaction, { actor, workspaceId: read.workspaceId, action: 'conversation.read', subject, ...change });
    }
    return read !== undefined;
  });
}

const isIn = (workspaceId: Scope) => sql`(${workspaceId ?? null}::uuid IS NULL OR c.workspace_id = ${workspaceId ?? null}::uuid)`;
