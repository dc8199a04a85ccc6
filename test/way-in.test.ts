/**
 * The way in under load, with a real API process: signed webhooks as fast as they go, and beside them, from the same address, senders who
 * prove nothing, and senders whose large bodies never end.
 */
import { createHmac, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { Pool } from 'undici';
import { loadIdentity } from '../src/record/identity';
import { conversationWorkflowId } from '../workflows/contract';
import { startSuite } from './support/suite';
import { type System, WEBHOOK_SECRET } from './support/system';

const WEBHOOKS = 20_000;
/** As busy as one provider's senders are. */
const CONNECTIONS = 64;
const PERSONS = 500;

/** Senders that stop in the middle of a body of the largest size: 600 MiB together. */
const HOLDING_SENDERS = 400;
const MIB = 1024 * 1024;
/** Some 420 MiB under this load alone, 64 MiB of unverified bodies, and what is not collected yet. */
const MEMORY_BOUND_MIB = 640;

let system: System;

beforeAll(async () => {
  system = await startSuite('way_in', { workers: 0 });
});

afterAll(async () => {
  await system?.close();
});

function signedHeaders(body: string): Record<string, string> {
  return { 'Content-Type': 'application/json', 'X-Webhook-Signature': createHmac('sha256', WEBHOOK_SECRET).update(body).digest('hex') };
}

function phoneOf(person: number): string {
  return `1555${1_000_000 + person}`;
}

/** Of four webhooks one is a message and three are statuses, as for a message that is answered. */
function webhook(index: number): string {
  const id = `wamid.${randomUUID()}`;
  if (index % 4 > 0)
    return JSON.stringify({ phone_number_id: system.phoneNumberId, statuses: [{ id, status: 'delivered', timestamp: '1795165200' }] });
  const message = {
    id,
    from: phoneOf((index / 4) % PERSONS),
    type: 'text',
    text: { body: 'hello' },
    kapso: { direction: 'inbound' },
  };
  return JSON.stringify({ message, phone_number_id: system.phoneNumberId });
}

/** How often each status came. */
type Tally = Map<number, number>;

function count(tally: Tally, status: number): void {
  tally.set(status, (tally.get(status) ?? 0) + 1);
}

/** Sends all of them, each connection as soon as it has its answer. */
async function sendSigned(pool: Pool): Promise<Tally> {
  const tally: Tally = new Map();
  let next = 0;
  const send = async () => {
    while (next < WEBHOOKS) {
      next += 1;
      const body = webhook(next);
      const answer = await pool.request({ method: 'POST', path: '/webhook/kapso', body, headers: signedHeaders(body) });
      await answer.body.dump();
      count(tally, answer.statusCode);
    }
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, send));
  return tally;
}

/** Sends webhooks without a signature, and with a wrong one, until `isOver`. */
async function sendUnsigned(pool: Pool, isOver: () => boolean): Promise<Tally> {
  const tally: Tally = new Map();
  const wrong = { 'X-Webhook-Signature': 'ab'.repeat(32) };
  while (!isOver()) {
    for (const headers of [{}, wrong]) {
      const answer = await pool.request({ method: 'POST', path: '/webhook/kapso', body: webhook(0), headers });
      await answer.body.dump();
      count(tally, answer.statusCode);
    }
  }
  return tally;
}

/** A sender that may be anybody, until its body is there. */
async function holdBody(sockets: Socket[]): Promise<void> {
  const { hostname, port } = new URL(system.apiUrl);
  const socket = connect(Number(port), hostname);
  sockets.push(socket);
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.write(
    `POST /webhook/kapso HTTP/1.1\r\nHost: api\r\nX-Webhook-Signature: ${'ab'.repeat(32)}\r\nContent-Length: ${3 * MIB}\r\n\r\n`,
  );
  socket.write(Buffer.alloc(1.5 * MIB, 'x'));
}

/** The most memory that the API had, looked at until `isOver`. */
async function watchMemory(isOver: () => boolean): Promise<number> {
  let mostMib = 0;
  while (!isOver()) {
    const metrics = await (await fetch(`${system.apiUrl}/metrics`)).text();
    const bytes = Number(/^process_resident_memory_bytes (\S+)$/m.exec(metrics)?.[1]);
    mostMib = Math.max(mostMib, bytes / MIB);
  }
  return Math.round(mostMib);
}

/** Messages that the conversations of all persons were signalled. */
async function countSignals(): Promise<number> {
  const identity = await loadIdentity(system.db);
  let signals = 0;
  for (let person = 0; person < PERSONS; person += 1) {
    const contactKey = identity.contactKey(system.phoneNumberId, { phone: phoneOf(person) });
    const { events } = await system.temporal.workflow.getHandle(conversationWorkflowId(system.phoneNumberId, contactKey)).fetchHistory();
    signals += (events ?? []).filter(({ workflowExecutionSignaledEventAttributes: signal }) => signal).length;
  }
  return signals;
}

test('when signed webhooks come as fast as they go and unsigned ones beside them, then only the latter are limited, and memory stays bounded', async () => {
  const pool = new Pool(system.apiUrl, { connections: CONNECTIONS + 2 });
  const sockets: Socket[] = [];
  let isOver = false;
  const startedAtMs = Date.now();
  try {
    const beside = Promise.all([sendUnsigned(pool, () => isOver), watchMemory(() => isOver)]);
    for (let held = 0; held < HOLDING_SENDERS; held += 1) await holdBody(sockets);
    const signed = await sendSigned(pool).finally(() => {
      isOver = true;
    });
    const seconds = (Date.now() - startedAtMs) / 1_000;
    const [unsigned, mostMib] = await beside;
    process.stderr.write(
      `way in: ${WEBHOOKS} signed webhooks in ${seconds.toFixed(1)} s (${JSON.stringify([...signed])}), unsigned beside them ` +
        `${JSON.stringify([...unsigned])}, memory at most ${mostMib} MiB (bound ${MEMORY_BOUND_MIB})\n`,
    );
    expect([...signed]).toEqual([[200, WEBHOOKS]]);
    expect([...unsigned.keys()].toSorted()).toEqual([401, 429]);
    expect(mostMib).toBeLessThan(MEMORY_BOUND_MIB);
    // A 200 means stored.
    expect(await system.db.messageStatusEvent.count()).toBe((WEBHOOKS * 3) / 4);
    expect(await countSignals()).toBe(WEBHOOKS / 4);
  } finally {
    for (const socket of sockets) socket.destroy();
    await pool.close();
  }
}, 600_000);

test('when a sender sends its body drop by drop, then it is cut off with a 408', async () => {
  const { hostname, port } = new URL(system.apiUrl);
  const socket = connect(Number(port), hostname);
  const answer = text(socket);
  socket.write(`POST /webhook/kapso HTTP/1.1\r\nHost: api\r\nX-Webhook-Signature: ${'ab'.repeat(32)}\r\nContent-Length: 1000\r\n\r\n`);
  const drip = setInterval(() => socket.write('x'), 100);
  const startedAtMs = Date.now();
  try {
    expect(await answer).toMatch(/^HTTP\/1\.1 408 /);
    expect(Date.now() - startedAtMs).toBeLessThan(20_000);
  } finally {
    clearInterval(drip);
    socket.destroy();
  }
});
