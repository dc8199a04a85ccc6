/**
 * What the rooms share: types, signals, queries and the makers of workflow ids.
 * Plain JSON only: no Date, Map, Set or enum object crosses a boundary. Imports Temporal's packages and nothing else.
 */
import { defineSearchAttributeKey } from '@temporalio/common';
import { defineQuery, defineSignal } from '@temporalio/workflow';

/** Who wrote. WhatsApp gives a number, a business-scoped id, or both; never neither. */
export interface ContactIdentity {
  /** Digits only, no plus. */
  phone?: string;
  businessScopedUserId?: string;
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
  conversationId?: string;
}

/** What a finished session says of itself. */
export interface ConversationResult extends ConversationTotals {
  conversationId?: string;
}

/** What a look into a running conversation shows; no text, no number. */
export interface ConversationState extends ConversationTotals {
  phase: string;
  pendingMessages: number;
  attention: boolean;
  conversationId?: string;
}

/** A send whose outcome was unknown is known now, or a sent reply failed later. */
export interface SendReported {
  messageId: string;
  status: 'sent' | 'failed';
}

/**
 * A fact about a call, as a webhook brought it and the record keeps it: ids and states only, because Vapi's payloads carry
 * secrets and personal data.
 */
export interface CallReported {
  providerCallId: string;
  type: 'status-update' | 'end-of-call-report';
  /** Of a status-update, as Vapi names it; open to new values. */
  status?: string;
  endedReason?: string;
  /** Milliseconds since 1970, by Vapi's clock where it gives one. */
  atMs: number;
}

export interface CallInput {
  /** Ours; the row's key. Whom to call stands in the record only. */
  callId: string;
  /** True for a call that this workflow is to place; false for one that others started and a webhook told of. */
  dials: boolean;
  /** Nothing heard for this long after dialling: Vapi is asked. */
  ringTimeoutMs: number;
  /** After the end, the report is waited for this long: then Vapi is asked. */
  reportGraceMs: number;
  /** The longest that the conversation itself can take. */
  maxDurationMs: number;
  /** A call that finds no free slot is tried again for this long. */
  queueForMs: number;
}

/** What a finished call says of itself; the rest stands in the record. */
export interface CallResult {
  callId: string;
  providerCallId: string | null;
  status: string;
  outcome: string;
  endedReason: string | null;
  durationSeconds: number | null;
  needsAttention: boolean;
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
export const callReported = defineSignal<[CallReported]>('callReported');
/** Somebody wants the call to be ended, or not to be placed. */
export const endRequested = defineSignal('endRequested');
export const conversationState = defineQuery<ConversationState>('conversationState');

/** Names of the search attributes; registered at start. No number and no text may stand in one. */
export const searchAttributes = {
  workspace: 'ParleyWorkspace',
  mode: 'ParleyMode',
  attention: 'ParleyAttention',
  callStatus: 'ParleyCallStatus',
  callOutcome: 'ParleyCallOutcome',
} as const;

/** Type names of the workflows, for callers that do not load their code. */
export const CONVERSATION_WORKFLOW = 'conversationWorkflow';
export const CALL_WORKFLOW = 'callWorkflow';

/** Where messages go whose body named no number while no first workspace was set. */
export const UNASSIGNED_NUMBER = 'unassigned';

const workspaceAttribute = defineSearchAttributeKey(searchAttributes.workspace, 'KEYWORD');
const modeAttribute = defineSearchAttributeKey(searchAttributes.mode, 'KEYWORD');
const attentionAttribute = defineSearchAttributeKey(searchAttributes.attention, 'BOOL');

/** A workflow task that was lost with its worker is given to another one after this long. */
export const WORKFLOW_TASK_TIMEOUT_MS = 5_000;

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

/** How a call is started: by the request to place it, or by the first event of one that others placed. */
export function callStart(input: CallInput, taskQueue: string) {
  return {
    workflowId: callWorkflowId(input.callId),
    taskQueue,
    args: [input] as [CallInput],
    workflowTaskTimeout: WORKFLOW_TASK_TIMEOUT_MS,
    // A closed call is never followed again; who starts it twice finds the one that runs.
    workflowIdReusePolicy: 'REJECT_DUPLICATE' as const,
    workflowIdConflictPolicy: 'USE_EXISTING' as const,
    staticSummary: input.dials ? 'Voice call, placed by us' : 'Voice call, followed only',
    typedSearchAttributes: [
      { key: defineSearchAttributeKey(searchAttributes.callStatus, 'KEYWORD'), value: 'queued' },
      { key: attentionAttribute, value: false },
    ],
  };
}

/** One workflow per contact of a workspace. */
export function conversationWorkflowId(phoneNumberId: string, contactKey: string): string {
  return `conversation-${phoneNumberId}-${contactKey}`;
}

/** One workflow per voice call. */
export function callWorkflowId(callId: string): string {
  return `call-${callId}`;
}

// --- What comes after a call: its callback, and its retention ---

export interface CallbackInput {
  /** Where to post to, and what, stands in the record only. */
  callId: string;
  /** Instead of the policy's total bound. */
  giveUpAfterMs?: number;
}

export const CALLBACK_WORKFLOW = 'callbackWorkflow';

/** One callback per call. */
export function callbackWorkflowId(callId: string): string {
  return `call-${callId}-callback`;
}

export interface RetentionInput {
  /** Calls that were done longer ago are archived or deleted. */
  days: number;
  /** `archive`: to files, then deleted. `keep`: calls stay. */
  action: 'archive' | 'delete' | 'keep';
  /** Nothing is changed; the result says what would be. */
  dryRun?: boolean;
  /** Calls in one statement (default 500). */
  batchSize?: number;
  /** An open call is looked at when it is this old (default one hour): whoever was to follow it does so by then. */
  orphanAfterMs?: number;
}

/** The calls of one month (UTC, by the time at which they were done) that are due. */
export interface DueMonth {
  /** `2026-08`. */
  month: string;
  calls: number;
  oldestAtMs: number;
  newestAtMs: number;
}

/** Where a batch of calls ends, in the order in which they were created. */
export interface CallPosition {
  createdAt: string;
  id: string;
}

/**
 * Why an open call has no workflow. `unplaced`: whatever became of it, the call is ours and nothing was dialled.
 * `unfollowed`: it was never started, or Temporal has forgotten it. `stopped`: it was terminated, failed or timed out.
 */
export type OrphanReason = 'unplaced' | 'unfollowed' | 'stopped';

/** An open call that no workflow follows. */
export interface Orphan {
  callId: string;
  why: OrphanReason;
  /** The request to place it was begun, and nobody knows Vapi's id. */
  isPlacementUnknown: boolean;
}

export interface RetentionProgress {
  /** Calls done before this time are due. */
  cutoffAtMs: number;
  action: RetentionInput['action'];
  dryRun: boolean;
  due: DueMonth[];
  /** Calls archived or deleted so far. */
  removed: number;
  /** Files that were written; of a dry run: the folder where they would be. */
  files: string[];
  /** Open calls without a workflow: those closed (`unplaced`) and followed again to their end, or (dry run) to be. */
  orphans: Record<OrphanReason, number>;
  isDone: boolean;
}

export const retentionProgress = defineQuery<RetentionProgress>('retentionProgress');
export const RETENTION_WORKFLOW = 'retentionWorkflow';
