/** Facts as providers report them and the record keeps them, without any vendor's field names. Some are personal: none of these travels in a signal. */

/** What WhatsApp reports about an outbound message. */
export type ReportedStatus = 'sent' | 'delivered' | 'read' | 'failed';

/** A report of WhatsApp's, as it is kept. */
export interface StatusReport {
  providerMessageId: string;
  status: ReportedStatus;
  atMs: number;
  error?: { code: number; title?: string };
}

export type CallDirection = 'outbound' | 'inbound' | 'web';

/** Which call it is, and who takes part. */
export interface CallParties {
  /** Vapi's id. */
  providerCallId: string;
  /** Our id, when it came back in the metadata or the name: any UUID there, so the record must know it too. */
  ownCallId?: string;
  direction: CallDirection;
  /** As Vapi gives it: E.164, as a rule. */
  fromNumber?: string;
  toNumber?: string;
  assistantId?: string;
  phoneNumberId?: string;
  /** The longest that the conversation may take, where the body says so. */
  maxDurationSeconds?: number;
}

/** One line of the conversation. Instructions to the model are not among them. */
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

/** Everything that is kept of a call that is over, or of its present state. */
export interface CallReport extends CallParties {
  /** As Vapi names it; `ended` for a report. */
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
  /** Names the recording; opens nothing. */
  recordingUrl?: string;
  summary?: string;
  structuredData?: unknown;
  successEvaluation?: string;
  /** False for a snapshot of a call that is still going on. */
  isEnded: boolean;
  providerContext: Record<string, unknown>;
  /** The body, cut down to the allow-list; without transcript and messages, which stand beside it. */
  raw: Record<string, unknown>;
}

/** A fact about a call that a webhook brought. */
export interface CallEvent extends CallParties {
  type: 'status-update' | 'end-of-call-report';
  /** Of a status-update; open to new values. */
  status?: string;
  endedReason?: string;
  /** ISO 8601. */
  startedAt?: string;
  endedAt?: string;
  /** Milliseconds since 1970: Vapi's clock, ours where it gives none. */
  atMs: number;
}
