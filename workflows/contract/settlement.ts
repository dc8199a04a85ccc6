/** The settlement of an unconfirmed send, which runs next to the conversation, so that the conversation can continue. */

export interface SettlementInput {
  /** The unconfirmed reply. */
  messageId: string;
  /** Until when to ask Kapso, in milliseconds since 1970; by then WhatsApp's 24-hour window has closed. */
  untilMs: number;
  /** Pause before the first look-up, in milliseconds (default 2 minutes); doubled each time, up to half an hour. */
  firstPauseMs?: number;
}

/** The result of a settlement. `unconfirmed`: still unknown. */
export interface SettlementResult {
  status: 'sent' | 'failed' | 'unconfirmed';
}

export const SETTLEMENT_WORKFLOW = 'settlementWorkflow';

/** One settlement per reply. */
export function settlementWorkflowId(messageId: string): string {
  return `settlement-${messageId}`;
}
