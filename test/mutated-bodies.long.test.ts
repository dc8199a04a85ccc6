/**
 * 20,000 webhooks of Kapso (v2 and v1), Meta and the plain form, damaged at random, to a real API process: each signed one is taken, as a
 * message, a status, a dead letter, or as not for us. The seed is the number of the webhook.
 */
import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Pool } from 'undici';
import { readKapsoBody } from '../src/providers/kapso/events';
import type { MessagesReceived } from '../workflows/contract';
import { damagedCase, type SentBody } from './support/damaged-bodies';
import { eventually } from './support/expectations';
import { randomNumbers } from './support/random';
import { startSuite } from './support/suite';
import { type System, WEBHOOK_SECRET } from './support/system';

const BODIES = 20_000;
const CONNECTIONS = 16;
/** Temporal takes 10,000 signals per workflow at most, and no worker ends one. */
const PEOPLE = 400;
const FIXTURES = join(__dirname, 'fixtures/kapso');

const index: { files: { file: string; headers: Record<string, string> }[] } = JSON.parse(
  readFileSync(join(FIXTURES, 'index.json'), 'utf8'),
);
const fixtures: SentBody[] = index.files
  .filter(({ file }) => /^(webhook_|meta_raw_)/.test(file))
  .map(({ file, headers }) => ({ body: JSON.parse(readFileSync(join(FIXTURES, file), 'utf8')), event: headers['X-Webhook-Event'] }));
fixtures.push({ body: { messages: [{ from: '15550100001', id: 'wamid.plain', text: { body: 'hi' } }] }, event: undefined });

interface Sent {
  bytes: Buffer;
  event: string | undefined;
}

/** The body of a seed; in one of five, bytes are damaged as well, so that it may not be JSON. Each has ids and a person of its own. */
function bodyOf(seed: number): Sent {
  const random = randomNumbers(seed);
  const fixture = fixtures[seed % fixtures.length] as SentBody;
  const { body, event } = damagedCase(fixture, seed);
  const json = JSON.stringify(body) ?? '';
  const text = json
    .replace(/wamid\.[\w=+/-]*/g, (id) => `${id}.${seed}`)
    .replace(/\b\d{11,13}\b/g, (digits) => `${digits.slice(0, -3)}${100 + (seed % PEOPLE)}`);
  const bytes = Buffer.from(text);
  for (let damages = random() < 0.2 ? Math.ceil(random() * 3) : 0; damages > 0 && bytes.length > 0; damages -= 1)
    bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256);
  return { bytes, event };
}

/** What the API must make of all bodies. */
interface Expected {
  results: Record<string, number>;
  messages: number;
  statuses: Set<string>;
}

function expectationsOf(bodies: readonly Sent[]): Expected {
  const expected: Expected = { results: {}, messages: 0, statuses: new Set() };
  for (const { bytes, event } of bodies) {
    const events = readKapsoBody(bytes, event);
    const isUnreadable = events.some(({ type }) => type === 'unreadable');
    const isForUs = events.some(({ type }) => type === 'message' || type === 'status');
    const result = isUnreadable ? 'unreadable' : isForUs ? 'taken' : 'skipped';
    expected.results[result] = (expected.results[result] ?? 0) + 1;
    for (const each of events) {
      if (each.type === 'message') expected.messages += 1;
      if (each.type === 'status') expected.statuses.add(`${each.providerMessageId} ${each.status}`);
    }
  }
  return expected;
}

let system: System;

beforeAll(async () => {
  system = await startSuite('mutated', { workers: 0, environment: () => ({ UNSIGNED_WEBHOOK_RATE_LIMIT_PER_MINUTE: '1000000' }) });
});

afterAll(async () => {
  await system?.close();
});

async function post(pool: Pool, { bytes, event }: Sent, signature: string): Promise<number> {
  const headers = { 'X-Webhook-Signature': signature, ...(event === undefined ? {} : { 'X-Webhook-Event': event }) };
  const { statusCode, body } = await pool.request({ method: 'POST', path: '/webhook/kapso', body: bytes, headers });
  await body.dump();
  return statusCode;
}

/** Sends all of them, each connection as soon as it has its answer. Returns how often each status came. */
async function sendAll(bodies: readonly Sent[], signatureOf: (sent: Sent) => string): Promise<Record<string, number>> {
  const pool = new Pool(system.apiUrl, { connections: CONNECTIONS });
  const statuses: Record<string, number> = {};
  let next = 0;
  const send = async () => {
    for (let body = bodies[next]; body !== undefined; body = bodies[next]) {
      next += 1;
      const status = await post(pool, body, signatureOf(body));
      statuses[status] = (statuses[status] ?? 0) + 1;
    }
  };
  try {
    await Promise.all(Array.from({ length: CONNECTIONS }, send));
  } finally {
    await pool.close();
  }
  return statuses;
}

async function countSignalledMessages(): Promise<number> {
  let messages = 0;
  const query = `TaskQueue = '${system.taskQueue}' AND WorkflowType = 'conversationWorkflow'`;
  for await (const { workflowId } of system.temporal.workflow.list({ query })) {
    const { events } = await system.temporal.workflow.getHandle(workflowId).fetchHistory();
    for (const { workflowExecutionSignaledEventAttributes: signaled } of events ?? []) {
      const [payload] = signaled?.input?.payloads ?? [];
      if (payload?.data) messages += (JSON.parse(Buffer.from(payload.data).toString()) as MessagesReceived).messages.length;
    }
  }
  return messages;
}

const metricsText = async () => await (await fetch(`${system.apiUrl}/metrics`)).text();

function resultsIn(metrics: string): Record<string, number> {
  const results: Record<string, number> = {};
  for (const [, result = '', count] of metrics.matchAll(/^parley_webhooks_total\{source="kapso",type="[^"]*",result="(\w+)"\} (\d+)$/gm))
    results[result] = (results[result] ?? 0) + Number(count);
  return results;
}

test('when 20,000 damaged webhooks come, then each signed one is taken and accounted for, and no unsigned one is', async () => {
  const bodies = Array.from({ length: BODIES }, (_, seed) => bodyOf(seed + 1));
  const expected = expectationsOf(bodies);
  expect(await sendAll(bodies.slice(0, 1_000), () => 'ab'.repeat(32))).toEqual({ 401: 1_000 });
  const sign = ({ bytes }: Sent) => createHmac('sha256', WEBHOOK_SECRET).update(bytes).digest('hex');
  expect(await sendAll(bodies, sign)).toEqual({ 200: BODIES });
  expect(system.api.child.exitCode).toBeNull();
  const { bad_signature: refused, ...results } = resultsIn(await metricsText());
  expect([refused, results]).toEqual([1_000, expected.results]);
  expect(Object.keys(expected.results).toSorted()).toEqual(['skipped', 'taken', 'unreadable']);
  const stored = await system.db.messageStatusEvent.findMany({ select: { providerMessageId: true, status: true } });
  expect(new Set(stored.map(({ providerMessageId, status }) => `${providerMessageId} ${status}`))).toEqual(expected.statuses);
  // Visibility is a little late.
  await eventually(async () => expect(await countSignalledMessages()).toBe(expected.messages), 120_000);
  expect(await system.db.spooledRequest.count()).toBe(0);
  expect(await system.db.deadLetter.count({ where: { reason: 'record_refused' } })).toBe(0);
  expect(await system.db.deadLetter.count()).toBeGreaterThan(BODIES / 20);
}, 600_000);
