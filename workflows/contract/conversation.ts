/** A conversation: the input, signals, query, id and start options of its workflow. */
import { defineQuery, defineSignal } from '@temporalio/workflow';
import { attentionAttribute, modeAttribute, WORKFLOW_TASK_TIMEOUT_MS, workspaceAttribute } from './search-attributes';

/** A sender. WhatsApp gives a number, a business-scoped id, or both; never neither. */
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

/** What the owner did in the WhatsApp Business app: wrote a message, or changed or deleted one (named by WhatsApp's id). */
export interface FromBusiness {
  edits?: string;
  deletes?: string;
}

/** A customer's message, or the owner's, without any vendor's field names. */
export interface InboundMessage {
  /** Our id, derived from WhatsApp's (a wamid contains the customer's number, in base64, and must not be logged). */
  id: string;
  /** WhatsApp's id of the message (wamid): its identity at the provider. */
  providerMessageId: string;
  /** `text`, `image`, `audio`, `location`, …; open to new kinds. */
  kind: string;
  /** What the customer wrote: body, caption, or the title of a pressed button. */
  text?: string;
  /** Other content of this kind (media id, coordinates, contacts, …). */
  payload?: Record<string, unknown>;
  /** Milliseconds since 1970, by the provider's clock. */
  sentAtMs: number;
  /** True for an imported old message, which is recorded but never answered. */
  isHistory?: boolean;
  /**
   * Set for what the owner typed in the WhatsApp Business app; the contact is the customer. `isHistory` is then true as well, so that a
   * worker before 0.4 never answers it.
   */
  fromBusiness?: FromBusiness;
  /** True for a message that was said in a group: recorded, but never answered in the private chat. */
  isInGroup?: boolean;
}

/** The argument of the signal that carries messages. */
export interface MessagesReceived {
  contact: ContactIdentity;
  messages: InboundMessage[];
}

export interface ConversationInput {
  /** Kapso's id of the business number (an opaque id, not a phone number). */
  phoneNumberId: string;
  /** HMAC of workspace and contact. */
  contactKey: string;
  /** State from before a continue-as-new. */
  snapshot?: ConversationSnapshot;
  /** How long to wait for a workspace with the number, in milliseconds (default: a day). */
  waitForWorkspaceMs?: number;
  /** Continue as new at this many history events, in addition to the server's suggestion. */
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
  /** Why the last turn got no reply. */
  lastFailure?: string;
  followUps?: CallEnded[];
  /** The conversation's behaviour, see `Recorded.flow`; 1 when missing. */
  flow?: number;
  /** The turn being collected, in the workflow's own format. */
  open?: unknown;
  /** Since when no workspace has the number; milliseconds since 1970. */
  waitingSinceMs?: number;
  conversationId?: string;
}

/** The result of a finished session. */
export interface ConversationResult extends ConversationTotals {
  conversationId?: string;
  /** The workflow that owns the person's conversation, when this one owns none: it was handed everything. */
  mergedInto?: string;
}

/** The state of a running conversation, without texts or phone numbers. */
export interface ConversationState extends ConversationTotals {
  phase: string;
  pendingMessages: number;
  attention: boolean;
  conversationId?: string;
}

/** The state of a reply after a step of the outbox. `pending`: it was certainly not sent. */
export type SendVerdict =
  /** `needsAttention`: whether the conversation still needs a person. */
  | { status: 'sent'; needsAttention?: boolean }
  /** Thrown away before it was sent, because the bot must be silent. */
  | { status: 'withheld' }
  | { status: 'unconfirmed' }
  | { status: 'pending'; retryAfterMs: number; reason: string }
  | { status: 'failed'; reason: string };

/** `under_way`: Kapso has not responded yet; the row will have the result. */
export type SendProgress = SendVerdict | { status: 'under_way' };

/** The outcome of an unconfirmed send has become known, or a sent reply has failed. */
export interface SendReported {
  messageId: string;
  status: 'sent' | 'failed';
}

/** A call with the person of this conversation has ended; the note with its summary is in the database. */
export interface CallEnded {
  /** The note, as a message of the conversation. */
  noteId: string;
  conversationId: string;
  /** A message in the outbox, to be sent after the call. */
  followUpId?: string;
  /** How long a send with an unknown outcome waits for proof. */
  sendConfirmMs: number;
}

export const messagesReceived = defineSignal<[MessagesReceived]>('messagesReceived');
export const sendReported = defineSignal<[SendReported]>('sendReported');
export const callEnded = defineSignal<[CallEnded]>('callEnded');
export const conversationState = defineQuery<ConversationState>('conversationState');

/** Workflow type, for clients that do not load its code. */
export const CONVERSATION_WORKFLOW = 'conversationWorkflow';

/** The number id of messages whose body named none, while no first workspace was configured. */
export const UNASSIGNED_NUMBER = 'unassigned';

/** Start options, for a signal to a conversation that may not be running. */
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
