/** Views of a simulated call: for tests and the control API, for watchers, and for matching scenarios and faults. */
import type { StoredCall } from './bodies';
import type { PlayName } from './plays';
import type { CreateCall, VapiRequest } from './requests';

/** A call as shown to tests and the control API. */
export interface CallView {
  /** Vapi's id. */
  id: string;
  name: string | undefined;
  direction: 'inbound' | 'outbound';
  number: string;
  metadata: Record<string, unknown> | undefined;
  play: PlayName;
  status: string;
  endedReason: string | undefined;
  /** False if there was no free slot, so that no phone rang. */
  dialled: boolean;
  createdAtMs: number;
}

/** An event in a call, for watchers. `answer` of a webhook: the last HTTP status (0: no response). */
export type CallEvent =
  | { type: 'status'; callId: string; status: string; endedReason?: string; atMs: number }
  | { type: 'words'; callId: string; role: 'bot' | 'user'; text: string; atMs: number }
  | { type: 'webhook'; callId: string; event: string; answer: number; attempts: number; atMs: number };

/** The view of a call. */
export function viewOf(call: StoredCall): CallView {
  const { id, direction, request, play, dialled, createdAtMs, endedReason } = call;
  const { number, name, metadata } = requestOf('create', request);
  return { id, name, direction, number: number ?? '', metadata, play, status: statusOf(call), endedReason, dialled, createdAtMs };
}

/** The current status of a call. */
export function statusOf({ statuses }: StoredCall): string {
  return statuses.at(-1) ?? 'queued';
}

/** The fields of a call's request that scenarios and faults match. */
export function requestOf(on: VapiRequest['on'], request: CreateCall): VapiRequest {
  const metadata = request.assistantOverrides?.metadata ?? request.metadata;
  return { on, number: request.customer.number, name: request.name, metadata };
}
