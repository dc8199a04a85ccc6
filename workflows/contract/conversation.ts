/** A conversation: what goes in, what is signalled and asked, and how its workflow is named and started. */
import { defineQuery, defineSignal } from '@temporalio/workflow';
import { attentionAttribute, modeAttribute, WORKFLOW_TASK_TIMEOUT_MS, workspaceAttribute } from './search-attributes';

/** Who wrote. WhatsApp gives a number, a business-scoped id, or both; never neither. */
export interface ContactIdentity {
  /** Digits only, no plus. */
  phone?: string;
  businessScopedUserId?: string;
  /** What the number or the id replaces, where WhatsApp says that the person has changed it. */
  formerPhone?: string;
  formerBusinessScopedUserId?: string;
  name?: string;
  username?: string;
}

/** One message from a customer, without any vendor's field names. */
export interface InboundMessage {
  /** Our id, made from WhatsApp's (a wamid has the customer's number in it, in base64, and may not be logged). */
  id: string;
  /** WhatsApp's id of the message (wamid): its identity at the provider. */
  providerMessageId: string;
  /** `text`, `image`, `audio`, `location`, …; open to kinds that do not exist yet. */
  kind: string;
  /** What the customer wrote: body, caption, or the title of a pressed button. */
  text?: string;
  /** What the kind carries besides (media id, coordinates, contacts, …). */
  payload?: Record<string, unknown>;
  /** Milliseconds since 1970, by the provider's clock. */
  sentAtMs: number;
  /** True for an imported old message: recorded, never answered. */
  isHistory?: boolean;
}

/** The argument of the only carrier of messages. */
export interface MessagesReceived {
  contact: ContactIdentity;
  messages: InboundMessage[];
}

export interface ConversationInput {
  /** Kapso's id of the business number (an opaque id, not a phone number). */
  phoneNumberId: string;
  /** HMAC of workspace and contact. */
  contactKey: string;
  /** State carried over a continue-as-new. */
  snapshot?: ConversationSnapshot;
  /** How long it waits for a workspace with the number, in milliseconds (default: a day). */
  waitForWorkspaceMs?: number;
  /** Continue as new when the history has this many events, besides the server's own hint. */
  maxHistoryEvents?: number;
}

export interface ConversationTotals {
  messages: number;
  replies: number;
  failedTurns: number;
  duplicatesDropped: number;
  promptTokens: number;
  completionTokens: number;
}

export interface ConversationSnapshot {
  pending: MessagesReceived[];
  seenIds: string[];
  totals: ConversationTotals;
  attention: boolean;
  mode: string;
  sessionTimeoutMs: number;
  lastReply: string;
  followUps?: CallEnded[];
  /** The conversation's behaviour, see `Recorded.flow`; 1 when missing. */
  flow?: number;
  /** The turn that is being collected, in the workflow's own form. */
  open?: unknown;
  /** Since when no workspace has the number; milliseconds since 1970. */
  waitingSinceMs?: number;
  conversationId?: string;
}

/** What a finished session says of itself. */
export interface ConversationResult extends ConversationTotals {
  conversationId?: string;
  /** The workflow that owns the person's conversation, when this one owns none: it was handed everything. */
  mergedInto?: string;
}

/** What a look into a running conversation shows; no text, no number. */
export interface ConversationState extends ConversationTotals {
  phase: string;
  pendingMessages: number;
  attention: boolean;
  conversationId?: string;
}

/** Where a reply stands after a step of the outbox. `pending` means that it is certain that nothing went out. */
export type SendVerdict =
  /** `needsAttention`: whether the conversation still asks for a person. */
  | { status: 'sent'; needsAttention?: boolean }
  | { status: 'unconfirmed' }
  | { status: 'pending'; retryAfterMs: number; reason: string }
  | { status: 'failed'; reason: string };

/** `under_way`: Kapso has not answered yet, and the row will say how it ended. */
export type SendProgress = SendVerdict | { status: 'under_way' };

/** A send whose outcome was unknown is known now, or a sent reply failed later. */
export interface SendReported {
  messageId: string;
  status: 'sent' | 'failed';
}

/** A call with the person of this conversation has ended; the note with its summary stands in the record. */
export interface CallEnded {
  /** The note, as a message of the conversation. */
  noteId: string;
  conversationId: string;
  /** A message that waits in the outbox to be sent after the call. */
  followUpId?: string;
  /** How long a send with an unknown outcome waits for proof. */
  sendConfirmMs: number;
}

export const messagesReceived = defineSignal<[MessagesReceived]>('messagesReceived');
export const sendReported = defineSignal<[SendReported]>('sendReported');
export const callEnded = defineSignal<[CallEnded]>('callEnded');
export const conversationState = defineQuery<ConversationState>('conversationState');

/** Type name of the workflow, for callers that do not load its code. */
export const CONVERSATION_WORKFLOW = 'conversationWorkflow';

/** Where messages go whose body named no number while no first workspace was set. */
export const UNASSIGNED_NUMBER = 'unassigned';

/** How a conversation is started, when the signal that goes with this finds none running. */
export function conversationStart({
  phoneNumberId,
  contactKey,
  taskQueue,
}: {
  phoneNumberId: string;
  contactKey: string;
  taskQueue: string;
}) {
  const input: ConversationInput = { phoneNumberId, contactKey };
  return {
    workflowId: conversationWorkflowId(phoneNumberId, contactKey),
    taskQueue,
    args: [input] as [ConversationInput],
    workflowTaskTimeout: WORKFLOW_TASK_TIMEOUT_MS,
    staticSummary: `WhatsApp conversation · number id ${phoneNumberId}`,
    typedSearchAttributes: [
      { key: workspaceAttribute, value: phoneNumberId },
      { key: modeAttribute, value: 'ai' },
      { key: attentionAttribute, value: false },
    ],
  };
}

/** One workflow per contact of a workspace. */
export function conversationWorkflowId(phoneNumberId: string, contactKey: string): string {
  return `conversation-${phoneNumberId}-${contactKey}`;
}

/** What `conversationWorkflowId` was given. @throws Error for any other id */
export function readConversationWorkflowId(workflowId: string): { phoneNumberId: string; contactKey: string } {
  const [, phoneNumberId, contactKey] = /^conversation-(.+)-([0-9a-f]+)$/.exec(workflowId) ?? [];
  if (phoneNumberId === undefined || contactKey === undefined) throw new Error(`${workflowId} is not the id of a conversation's workflow`);
  return { phoneNumberId, contactKey };
}
