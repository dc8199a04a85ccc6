/** The settlement of a send whose outcome is unknown: it goes on beside the conversation, which answers what comes next. */

export interface SettlementInput {
  /** The reply in doubt. */
  messageId: string;
  /** Kapso is asked until then; afterwards WhatsApp's window for a free answer has closed. Milliseconds since 1970. */
  untilMs: number;
  /** Before Kapso is asked for the first time, in milliseconds; doubled each time, up to half an hour (default 2 minutes). */
  firstPauseMs?: number;
}

/** How a settlement ended. `unconfirmed`: nobody knows to this day. */
export interface SettlementResult {
  status: 'sent' | 'failed' | 'unconfirmed';
}

export const SETTLEMENT_WORKFLOW = 'settlementWorkflow';

/** One settlement per reply. */
export function settlementWorkflowId(messageId: string): string {
  return `settlement-${messageId}`;
}
