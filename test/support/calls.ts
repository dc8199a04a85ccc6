/** Places and reads voice calls as a client of the API. */
import { randomUUID } from 'node:crypto';
import type { CallView } from '../../src/api/views/call';
import { CALL_WORKFLOW, type CallInput, callStart, callWorkflowId } from '../../workflows/contract';
import { API_KEY, type System } from './system';

/** A response with a JSON body. */
export interface Answered<T> {
  status: number;
  body: T;
  headers: Headers;
}

/** Sends a request with the API key. */
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
  return { status: response.status, body: (response.status === 204 ? undefined : await response.json()) as T, headers: response.headers };
}

/** Places a call, with a new idempotency key by default. */
export async function placeCall(
  system: Pick<System, 'apiUrl'>,
  body: Record<string, unknown>,
  idempotencyKey: string = randomUUID(),
): Promise<Answered<CallView>> {
  return await request(system, 'POST', '/api/v1/vapi/calls', { body, headers: { 'Idempotency-Key': idempotencyKey } });
}

/** Starts a call's workflow as the API does, with short bounds that a test may change. Returns the call's id. */
export async function startCall(
  { db, temporal, taskQueue, environment }: Pick<System, 'db' | 'temporal' | 'taskQueue' | 'environment'>,
  to: string,
  bounds: Partial<CallInput> = {},
): Promise<string> {
  const callId = randomUUID();
  const { VAPI_ASSISTANT_ID: assistantId = null, VAPI_PHONE_NUMBER_ID: phoneNumberId = null } = environment;
  const row = { id: callId, workflowId: callWorkflowId(callId), toNumber: to, assistantId, phoneNumberId, requestHash: callId };
  await db.vapiCallResult.create({ data: { ...row, direction: 'outbound' } });
  const shortBounds = { ringTimeoutMs: 500, reportGraceMs: 300, maxDurationMs: 500, queueForMs: 30_000 };
  await temporal.workflow.start(CALL_WORKFLOW, callStart({ callId, dials: true, ...shortBounds, ...bounds }, taskQueue));
  return callId;
}

/** Waits for the result as a Kestra flow does: long-polls until `done`. @throws Error after `timeoutMs` */
export async function resultOf(system: Pick<System, 'apiUrl'>, callId: string, timeoutMs = 30_000, include = ''): Promise<CallView> {
  const deadlineMs = Date.now() + timeoutMs;
  for (;;) {
    const query = `wait=5${include ? `&include=${include}` : ''}`;
    const { status, body } = await request(system, 'GET', `/api/v1/vapi/calls/${callId}?${query}`);
    if (status === 200 && body.done) return body;
    if (Date.now() > deadlineMs) throw new Error(`call ${callId} is not done: ${status} ${JSON.stringify(body)}`);
  }
}

/** The history of the call's workflow as text, with the base64 payloads decoded so that it can be searched. */
export async function historyOf({ temporal }: Pick<System, 'temporal'>, callId: string): Promise<string> {
  const history = JSON.stringify(await temporal.workflow.getHandle(callWorkflowId(callId)).fetchHistory());
  const decoded = history.replace(/"data":"([^"]*)"/g, (_all, data: string) => Buffer.from(data, 'base64').toString());
  if (!decoded.includes(`"callId":"${callId}"`)) throw new Error('the payloads of the history could not be decoded');
  return decoded;
}

let lastNumber = 0;

/** A phone number that is unique in this run and whose last four digits, from 5001 on, select no scenario. */
export function newNumber(): string {
  lastNumber += 1;
  return `+1212${2_000_000 + (process.pid % 500) * 10_000 + 5_000 + lastNumber}`;
}
