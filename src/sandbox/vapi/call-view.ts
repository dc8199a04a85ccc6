/** A call as others see it: its view, its events, and what its request says. */
import type { StoredCall } from './bodies';
import type { PlayName } from './plays';
import type { CreateCall, VapiRequest } from './requests';

/** A call as a test sees it. */
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
  /** False for a call that found no free slot: no phone rang. */
  dialled: boolean;
  createdAtMs: number;
}

/** What happens in a call, for who watches it. `answer` of a webhook: the last HTTP status, 0 for none. */
export type CallEvent =
  | { type: 'status'; callId: string; status: string; endedReason?: string; atMs: number }
  | { type: 'words'; callId: string; role: 'bot' | 'user'; text: string; atMs: number }
  | { type: 'webhook'; callId: string; event: string; answer: number; attempts: number; atMs: number };

export function viewOf(call: StoredCall): CallView {
  const { id, direction, request, play, dialled, createdAtMs, endedReason } = call;
  const { number, name, metadata } = requestOf('create', request);
  return { id, name, direction, number: number ?? '', metadata, play, status: statusOf(call), endedReason, dialled, createdAtMs };
}

export function statusOf({ statuses }: StoredCall): string {
  return statuses.at(-1) ?? 'queued';
}

export function requestOf(on: VapiRequest['on'], request: CreateCall): VapiRequest {
  const metadata = request.assistantOverrides?.metadata ?? request.metadata;
  return { on, number: request.customer.number, name: request.name, metadata };
}
