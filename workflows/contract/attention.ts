/** Why a conversation needs a person. */

/**
 * `turn_failed`: a turn got no reply. `reply_failed`: a reply was not delivered. `send_unconfirmed`: nobody knows whether a reply was
 * delivered. `waiting_for_model`: no provider is answering. `dead_letter`: a message could not be stored. `too_old`: a message was too old
 * to be answered. `loop`: messages are not answered, because their sender is probably a bot. `undelivered`: WhatsApp
 * has a message and does not deliver it. `waiting_for_person`: the bot is silent, and the customer has waited for too long. `handed_over`:
 * the conversation was handed to a person.
 */
export const ATTENTION_KINDS = [
  'turn_failed',
  'reply_failed',
  'send_unconfirmed',
  'waiting_for_model',
  'dead_letter',
  'too_old',
  'loop',
  'undelivered',
  'waiting_for_person',
  'handed_over',
] as const;
export type AttentionKind = (typeof ATTENTION_KINDS)[number];

/** A reason. A conversation has at most one per kind and subject. */
export interface AttentionReason {
  kind: AttentionKind;
  /** ISO 8601. */
  since: string;
  /** In words, without personal data. */
  text: string;
  /** Distinguishes reasons of the same kind, such as the id of a reply. */
  subject?: string;
}
