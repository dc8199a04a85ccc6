/** Why a conversation asks for a person. */

/**
 * `turn_failed`: a turn got no reply. `reply_failed`: a reply was not delivered. `send_unconfirmed`: nobody knows whether a reply went
 * out. `waiting_for_model`: no provider answers at the moment. `dead_letter`: a message could not be stored.
 */
export type AttentionKind = 'turn_failed' | 'reply_failed' | 'send_unconfirmed' | 'waiting_for_model' | 'dead_letter';

/** One reason. A conversation has at most one of a kind and subject. */
export interface AttentionReason {
  kind: AttentionKind;
  /** ISO 8601. */
  since: string;
  /** For a person; without anything personal. */
  text: string;
  /** Tells reasons of one kind apart, such as the id of a reply. */
  subject?: string;
}
