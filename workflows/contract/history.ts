/** The import of a number's history from Kapso. */

/** How far an import has come; also the input of the next page. */
export interface SyncPosition {
  phase: 'conversations' | 'messages' | 'done';
  /** Kapso's cursor of the next page. */
  cursor?: string;
  /** Only messages before this time are history; milliseconds since 1970. */
  untilMs: number;
  /** Rows that Kapso has listed so far. */
  conversations: number;
  messages: number;
  /** Of these, the messages that are stored as history. */
  imported: number;
  /** Rows that cannot be read. */
  unreadable: number;
}

export interface SyncInput {
  workspaceId: string;
  /** Kapso's id of the business number. */
  phoneNumberId: string;
  /** Identifies this import. */
  syncId: string;
  /** Begins anew, although an earlier import was not finished. */
  fromStart: boolean;
  /** State from before a continue-as-new. */
  position?: SyncPosition;
}

export const SYNC_WORKFLOW = 'syncWorkflow';

/** One import per number at a time. */
export function syncWorkflowId(phoneNumberId: string): string {
  return `sync-${phoneNumberId}`;
}
