/** Messages that wait while the bot is silent, and are answered when it may answer again. */
import type { InboundMessage } from '../../workflows/contract';
import { type Database, isOneOf, sql } from '../platform/database';
import { raiseAttention } from './attention';
import { findContextOf, isOpenFor, isSilent, type KnownContext, type RecordingRules } from './inbound';
import { effectiveMode } from './modes';
import { attentionFor, type ImmediateOutcome, immediateOutcome } from './unanswered';

/** The conversation as it is, with the messages that the workflow may answer now. */
export interface Resumed {
  context: KnownContext;
  answerableIds: string[];
}

interface OpenMessage {
  id: string;
  kind: string;
  text: string | null;
  occurredAt: Date;
}

/** Undefined if the conversation does not exist. While the bot is silent, nothing may be answered. Safe to repeat. */
export async function resumeConversation(
  db: Database,
  { conversationId, workflowId }: { conversationId: string; workflowId: string },
  rules: RecordingRules,
): Promise<Resumed | undefined> {
  const context = await findContextOf(db, conversationId, rules.answerLimits);
  if (!context) return undefined;
  if (isSilent(context)) return { context, answerableIds: [] };
  const open = await db.query<OpenMessage>(sql`
    SELECT m.id, m.kind, m.text, m.occurred_at AS "occurredAt" FROM messages m
    WHERE ${isOpenFor(context.conversationId, workflowId)} ORDER BY m.position`);
  const judged = judge(open, { ...context, hasModel: rules.hasModel(context) }, rules);
  const isTooOld = [...judged.values()].includes('too_old');
  for (const [id, outcome] of judged) {
    if (outcome === null) continue;
    await db.query(sql`UPDATE messages SET outcome = ${outcome}::message_outcome WHERE id = ${id}::uuid AND outcome IS NULL`);
  }
  const reason = isTooOld ? attentionFor('too_old', rules.answerLimits) : undefined;
  if (reason) await raiseAttention(db, { conversationId: context.conversationId, ...reason });
  const answerableIds = open.filter(({ id }) => judged.get(id) === null).map(({ id }) => id);
  await endWaiting(db, context.conversationId, answerableIds);
  return { context: isTooOld ? { ...context, needsAttention: true } : context, answerableIds };
}

/** The outcomes of messages that get no reply after all. Repetitions get one reply together with the rest. */
function judge(
  open: OpenMessage[],
  context: KnownContext & { hasModel: boolean },
  { answerLimits }: RecordingRules,
): Map<string, ImmediateOutcome | null> {
  const state = { ...context, mode: 'ai', recent: { said: [], replies: 0 } };
  return new Map(
    open.map(({ id, kind, text, occurredAt }) => {
      const message: InboundMessage = {
        id,
        providerMessageId: id,
        kind,
        ...(text === null ? {} : { text }),
        sentAtMs: occurredAt.getTime(),
      };
      return [id, immediateOutcome(message, state, answerLimits)];
    }),
  );
}

/** Nothing waits for a person any more, unless the bot was silenced again, or another message has come since. */
async function endWaiting(db: Database, conversationId: string, takenIds: string[]): Promise<void> {
  await db.query(sql`
    UPDATE conversations c SET waiting_since = NULL FROM workspaces w
    WHERE c.id = ${conversationId}::uuid AND w.id = c.workspace_id AND ${effectiveMode} = 'ai' AND NOT EXISTS (
      SELECT FROM messages m WHERE m.conversation_id = c.id AND m.direction = 'inbound' AND m.outcome IS NULL AND m.turn_id IS NULL
        AND NOT ${isOneOf(sql`m.id`, takenIds)})`);
}
