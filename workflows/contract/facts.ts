/** Facts that providers report and the database stores, without any vendor's field names. Some are personal, so none of these is sent in a signal. */

/** What WhatsApp reports about an outbound message. */
export type ReportedStatus = 'sent' | 'delivered' | 'read' | 'failed';

/** A status report from WhatsApp, as stored. */
export interface StatusReport {
  providerMessageId: string;
  status: ReportedStatus;
  atMs: number;
  error?: { code: number; title?: string };
}

export type CallDirection = 'outbound' | 'inbound' | 'web';

/** Identifies a call and its participants. */
export interface CallParties {
  /** Vapi's id. */
  providerCallId: string;
  /** A UUID from the metadata or the name, which may be our id; check that the database knows it. */
  ownCallId?: string;
  direction: CallDirection;
  /** As given by Vapi: usually E.164. */
  fromNumber?: string;
  toNumber?: string;
  assistantId?: string;
  phoneNumberId?: string;
  /** Maximum duration of the conversation, if the body contains it. */
  maxDurationSeconds?: number;
}

/** A line of the conversation; instructions to the model are excluded. */
export interface CallMessage {
  /** `assistant`, `user`, `tool_calls`, `tool_call_result`; open to new ones. */
  role: string;
  text?: string;
  /** ISO 8601. */
  time?: string;
  secondsFromStart?: number;
  toolName?: string;
  toolCallId?: string;
}

/** Everything stored about an ended call, or about the current state of a live one. */
export interface CallReport extends CallParties {
  /** Vapi's status; `ended` for a report. */
  status?: string;
  endedReason?: string;
  /** ISO 8601. */
  startedAt?: string;
  endedAt?: string;
  durationSeconds?: number;
  /** US dollars. */
  cost?: number;
  transcript?: string;
  messages?: CallMessage[];
  /** Whether the person on the phone said anything; missing if the report does not show it. */
  customerSpoke?: boolean;
  /** Identifies the recording; not a download URL. */
  recordingUrl?: string;
  summary?: string;
  structuredData?: unknown;
  successEvaluation?: string;
  /** False for a snapshot of a live call. */
  isEnded: boolean;
  providerContext: Record<string, unknown>;
  /** The allow-listed parts of the body, without transcript and messages, which have their own fields. */
  raw: Record<string, unknown>;
}

/** A fact about a call from a webhook. */
export interface CallEvent extends CallParties {
  type: 'status-update' | 'end-of-call-report';
  /** Of a status-update; open to new values. */
  status?: string;
  endedReason?: string;
  /** ISO 8601. */
  startedAt?: string;
  endedAt?: string;
  /** Milliseconds since 1970, by Vapi's clock, or ours if it gives no time. */
  atMs: number;
}
