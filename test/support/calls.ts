/** Voice calls as a caller of the API places and reads them. */
import { randomUUID } from 'node:crypto';
import type { CallView } from '../../src/api/views/call';
import { callWorkflowId } from '../../workflows/contract';
import { API_KEY, type System } from './system';

export interface Answered<T> {
  status: number;
  body: T;
  headers: Headers;
}

/** A request with the key. */
export async function request<T = CallView>(
  { apiUrl }: Pick<System, 'apiUrl'>,
  method: string,
  path: string,
  { body, headers = {} }: { body?: unknown; headers?: Record<string, string> } = {},
): Promise<Answered<T>> {
  const response = await fetch(`${apiUrl}${path}`, {
    method,
    headers: { Authorization: `Bearer ${API_KEY}`, ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: (await response.json()) as T, headers: response.headers };
}

/** Places a call; the key is a new one unless given. */
export async function placeCall(
  system: Pick<System, 'apiUrl'>,
  body: Record<string, unknown>,
  idempotencyKey: string = randomUUID(),
): Promise<Answered<CallView>> {
  return await request(system, 'POST', '/api/v1/vapi/calls', { body, headers: { 'Idempotency-Key': idempotencyKey } });
}

/** Waits for the result as a Kestra flow does: asks again until `done`. @throws Error after `timeoutMs` */
export async function resultOf(system: Pick<System, 'apiUrl'>, callId: string, timeoutMs = 30_000, include = ''): Promise<CallView> {
  const deadlineMs = Date.now() + timeoutMs;
  for (;;) {
    const query = `wait=5${include ? `&include=${include}` : ''}`;
    const { status, body } = await request(system, 'GET', `/api/v1/vapi/calls/${callId}?${query}`);
    if (status === 200 && body.done) return body;
    if (Date.now() > deadlineMs) throw new Error(`call ${callId} is not done: ${status} ${JSON.stringify(body)}`);
  }
}

/** Everything that the history of the call's workflow holds, as text. Its payloads come as base64, in which nothing would be found. */
export async function historyOf({ temporal }: Pick<System, 'temporal'>, callId: string): Promise<string> {
  const history = JSON.stringify(await temporal.workflow.getHandle(callWorkflowId(callId)).fetchHistory());
  const decoded = history.replace(/"data":"([^"]*)"/g, (_all, data: string) => Buffer.from(data, 'base64').toString());
  if (!decoded.includes(`"callId":"${callId}"`)) throw new Error('the payloads of the history could not be read');
  return decoded;
}

let lastNumber = 0;

/** A number that nobody else calls in this run, and whose last digits choose no play. */
export function newNumber(): string {
  lastNumber += 1;
  return `+1212${String(2_360_000 + (process.pid % 500) * 100 + lastNumber).padStart(7, '0')}`;
}
