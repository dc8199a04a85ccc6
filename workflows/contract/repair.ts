/** Repair: finds the messages in Kapso's list that no webhook has brought. */

/** What one pass needs. */
export interface RepairInput {
  /** Kapso's id of the business number. */
  phoneNumberId: string;
}

/** What a pass has found. */
export interface RepairResult {
  /** Rows of Kapso's list. */
  listed: number;
  /** Messages, statuses, and rows that cannot be read, which no webhook had brought. */
  messages: number;
  statuses: number;
  unreadable: number;
  /** Why the pass ended early. The next one goes on from the same place. */
  problem?: string;
}

export const REPAIR_WORKFLOW = 'repairWorkflow';

/** One schedule per number. */
export function repairScheduleId(phoneNumberId: string): string {
  return `parley-repair-${phoneNumberId}`;
}
