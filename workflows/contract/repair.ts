/** Repair: finds the messages in Kapso's list that came by no webhook. */

/** The input of a pass. */
export interface RepairInput {
  /** Kapso's id of the business number. */
  phoneNumberId: string;
}

/** The result of a pass. */
export interface RepairResult {
  /** Rows of Kapso's list. */
  listed: number;
  /** Messages, statuses and unreadable rows that came by no webhook. */
  messages: number;
  statuses: number;
  unreadable: number;
  /** Why the pass ended early. The next one continues from the same position. */
  problem?: string;
}

export const REPAIR_WORKFLOW = 'repairWorkflow';

/** One schedule per number. */
export function repairScheduleId(phoneNumberId: string): string {
  return `parley-repair-${phoneNumberId}`;
}
