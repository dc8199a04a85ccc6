/** What an operator sees of a conversation in the Temporal UI: details, search attributes and the query's answer. */
import { setCurrentDetails, upsertSearchAttributes } from '@temporalio/workflow';
import {
  attentionAttribute,
  type ConversationResult,
  type ConversationSnapshot,
  type ConversationState,
  type ConversationTotals,
  modeAttribute,
} from '../contract';
import type { Inbox } from './inbox';

const NOTHING_YET = {
  messages: 0,
  replies: 0,
  failedTurns: 0,
  duplicatesDropped: 0,
  promptTokens: 0,
  completionTokens: 0,
} as const satisfies ConversationTotals;

/** The part of a snapshot that belongs to the view. */
type ViewSnapshot = Pick<ConversationSnapshot, 'totals' | 'attention' | 'mode' | 'lastReply' | 'lastFailure' | 'conversationId'>;

/** The bold line stays readable; the database has the whole cause. */
const MAX_CAUSE_LENGTH = 300;

export class ConversationView {
  readonly totals: ConversationTotals;
  conversationId: string | undefined;
  readonly #phoneNumberId: string;
  readonly #inbox: Inbox;
  #attention: boolean;
  #mode: string;
  #lastReply: string;
  /** Why the customer got no reply to the last turn. */
  #lastFailure: string | undefined;
  #phase = 'waiting for a message';

  constructor(phoneNumberId: string, inbox: Inbox, snapshot: ViewSnapshot | undefined) {
    this.#phoneNumberId = phoneNumberId;
    this.#inbox = inbox;
    this.totals = snapshot?.totals ?? { ...NOTHING_YET };
    this.#attention = snapshot?.attention ?? false;
    this.#mode = snapshot?.mode ?? 'ai';
    this.#lastReply = snapshot?.lastReply ?? 'none yet';
    this.#lastFailure = snapshot?.lastFailure;
    this.conversationId = snapshot?.conversationId;
  }

  showMode(mode: string): void {
    if (mode === this.#mode) return;
    this.#mode = mode;
    upsertSearchAttributes([{ key: modeAttribute, value: mode }]);
  }

  showAttention(attention: boolean): void {
    if (attention === this.#attention) return;
    this.#attention = attention;
    upsertSearchAttributes([{ key: attentionAttribute, value: attention }]);
  }

  /** `by`: who wrote the reply that was sent. Clears the last failure. */
  replied(by: string): void {
    this.#lastReply = by;
    this.#lastFailure = undefined;
  }

  /** `cause` must not contain personal data. */
  failed(cause: string): void {
    this.#lastFailure = cause.slice(0, MAX_CAUSE_LENGTH);
  }

  /** The turn had not failed for this cause after all. */
  hasNotFailed(cause: string): void {
    if (this.#lastFailure === cause) this.#lastFailure = undefined;
  }

  /** Sets the details. They are not a command, so a replay is unaffected. */
  showPhase(phase: string): void {
    this.#phase = phase;
    const { messages, replies, failedTurns } = this.totals;
    const failure = this.#lastFailure === undefined ? '' : ` · last turn failed: ${this.#lastFailure}`;
    setCurrentDetails(
      [
        `conversation ${this.conversationId ?? '(not stored yet)'}`,
        `**${phase}${failure}**${this.#attention ? ' · needs attention' : ''}`,
        `messages ${messages} · replies ${replies} · failed turns ${failedTurns} · waiting ${this.#inbox.size}`,
        `mode ${this.#mode} · last reply ${this.#lastReply}`,
        `WhatsApp number id ${this.#phoneNumberId}`,
      ].join('\n\n'),
    );
  }

  state(): ConversationState {
    return { ...this.result(), phase: this.#phase, pendingMessages: this.#inbox.size, attention: this.#attention };
  }

  result(): ConversationResult {
    return {
      ...this.totals,
      duplicatesDropped: this.totals.duplicatesDropped + this.#inbox.duplicatesDropped,
      ...(this.conversationId ? { conversationId: this.conversationId } : {}),
    };
  }

  snapshot(): ViewSnapshot {
    const { conversationId } = this;
    return {
      totals: this.result(),
      attention: this.#attention,
      mode: this.#mode,
      lastReply: this.#lastReply,
      ...(this.#lastFailure === undefined ? {} : { lastFailure: this.#lastFailure }),
      ...(conversationId ? { conversationId } : {}),
    };
  }
}
