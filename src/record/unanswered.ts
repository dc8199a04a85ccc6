/** Which messages get no reply, and why. Pure. */
import type { AttentionKind, InboundMessage } from '../../workflows/contract';

/** Limits beyond which messages are not answered. */
export interface AnswerLimits {
  /** Maximum age of a message, in ms, by WhatsApp's clock. */
  withinMs: number;
  /** Maximum number of replies to one person. */
  repliesPerHour: number;
}

/** What happened in the conversation within the last hour. */
export interface RecentTalk {
  /** What the person wrote, newest first; each cut to `RECENT_TEXT_LENGTH`. */
  said: { kind: string; text: string | null; outcome: string | null }[];
  /** Replies, plus one if messages wait for a model. */
  replies: number;
}

/** Why a message gets no reply, where that depends on the workspace or the conversation. */
export interface AnsweringState {
  mode: string | null;
  chatbotEnabled: boolean;
  aiEnabled: boolean;
  /** Whether a model can be called. */
  hasModel: boolean;
  recent: RecentTalk;
}

/** The outcomes that a message can have as soon as it is recorded. */
export type ImmediateOutcome = 'history' | 'group' | 'human' | 'paused' | 'ai_disabled' | 'unsupported' | 'too_old' | 'loop';

/** Kinds of message that are answered if they have text, which for media is the caption. */
const ANSWERABLE_KINDS = new Set(['text', 'image', 'video', 'document', 'audio', 'sticker']);

/** Kinds that need no answer. While the bot is silent, any other kind waits for the person. */
const KINDS_WITHOUT_QUESTION = new Set(['reaction', 'system', 'edit', 'revoke', 'unsupported']);

/** The outcome of a message when it is recorded; null if it needs a reply, or, while the bot is silent, waits for one. */
export function immediateOutcome(message: InboundMessage, state: AnsweringState, limits: AnswerLimits): ImmediateOutcome | null {
  if (message.isHistory) return 'history';
  if (message.isInGroup) return 'group';
  if (state.mode === 'human' || state.mode === 'paused') return KINDS_WITHOUT_QUESTION.has(message.kind) ? state.mode : null;
  if (!state.chatbotEnabled || !state.aiEnabled || !state.hasModel) return 'ai_disabled';
  if (!ANSWERABLE_KINDS.has(message.kind) || !message.text?.trim()) return 'unsupported';
  if (Date.now() - message.sentAtMs > limits.withinMs) return 'too_old';
  if (state.recent.replies >= limits.repliesPerHour || isRepetition(message, state.recent)) return 'loop';
  return null;
}

/** The reason for attention of an outcome that needs a person. */
export function attentionFor(outcome: string | null, limits: AnswerLimits): { kind: AttentionKind; text: string } | undefined {
  const hours = Math.round(limits.withinMs / 3_600_000);
  if (outcome === 'too_old') return { kind: 'too_old', text: `a message arrived more than ${hours} hours late, and was not answered` };
  const often = `the same text again and again, or ${limits.repliesPerHour} replies within an hour`;
  if (outcome === 'loop') return { kind: 'loop', text: `${often}: probably a bot, which is not answered` };
  return undefined;
}

/** A text that was answered this often within an hour, with no other in between, is not answered again. */
const MAX_EQUAL_ANSWERS = 3;
/** The same for a short text: people answer one question after the other with "yes" or "1". */
const MAX_EQUAL_SHORT_ANSWERS = 10;
const SHORT_TEXT_LENGTH = 20;

/**
 * Whether the person, probably a bot, has had enough replies to the same text. Repetitions between two replies do not count, because one
 * reply answers them together. Another text, or a message that is not text, restarts the count.
 */
function isRepetition({ kind, text }: InboundMessage, { said }: RecentTalk): boolean {
  if (kind !== 'text' || text === undefined) return false;
  const wanted = comparable(text);
  const maxAnswers = wanted.length <= SHORT_TEXT_LENGTH ? MAX_EQUAL_SHORT_ANSWERS : MAX_EQUAL_ANSWERS;
  let answers = 0;
  for (const earlier of said) {
    if (earlier.outcome === 'history' || earlier.outcome === 'group') continue;
    if (earlier.kind !== 'text' || comparable(earlier.text ?? '') !== wanted) return false;
    // The earlier message's own outcome, so that the loop does not restart although replies have stopped.
    if (earlier.outcome === 'loop') return true;
    if (earlier.outcome === 'answered' || earlier.outcome === 'unconfirmed') answers += 1;
    if (answers >= maxAnswers) return true;
  }
  return false;
}

/** How much of a text is read to compare it, in UTF-16 code units. */
export const RECENT_TEXT_LENGTH = 400;
const COMPARED_LENGTH = 300;
/** People do not retype a text with so many letters, so its numbers are a date or a ticket. In a shorter text, they are a choice. */
const LETTERS_OF_A_SENTENCE = 40;

/** The text without differences in case and white space, and, if it is long, in its numbers. */
function comparable(text: string): string {
  const plain = text.slice(0, RECENT_TEXT_LENGTH).toLowerCase().replace(/\s+/gu, ' ').trim();
  const letters = plain.replace(/\P{L}+/gu, '').length;
  const bare = letters < LETTERS_OF_A_SENTENCE ? plain : plain.replace(/\p{N}+/gu, '0');
  return bare.slice(0, COMPARED_LENGTH);
}
