import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startTestSandbox } from '../../test/support/sandbox';
import { Journal } from './journal';
import type { RememberedMessage } from './kapso/store';
import { type Receiver, startReceiver } from './receiver';
import type { Sandbox } from './sandbox';

const PHONE = '15550100001';
let folder: string;
let receiver: Receiver;
let sandbox: Sandbox;

async function start(statusDelaysMs = { sent: 5, delivered: 10, read: 15 }): Promise<void> {
  sandbox = await startTestSandbox({
    webhookUrls: [receiver.url],
    statusDelaysMs,
    memoryDir: folder,
    vapi: { serverUrl: receiver.url, timings: { queueMs: 5, ringMs: 60_000, talkMs: 30, reportMs: 15 } },
  });
}

async function restart(...options: Parameters<typeof start>): Promise<void> {
  await sandbox.close();
  await start(...options);
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'parley-sandbox-'));
  receiver = await startReceiver();
  await start();
});
afterEach(async () => {
  await sandbox.close();
  await receiver.close();
  rmSync(folder, { recursive: true, force: true });
});

async function list(): Promise<unknown> {
  const response = await fetch(`${sandbox.url}/platform/v1/whatsapp/messages?limit=100`, { headers: { 'X-API-Key': 'key' } });
  return ((await response.json()) as { data: unknown }).data;
}

async function reply(text: string): Promise<string> {
  const response = await fetch(`${sandbox.url}/meta/whatsapp/v24.0/1/messages`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'X-API-Key': 'key' },
    body: JSON.stringify({ messaging_product: 'whatsapp', to: PHONE, type: 'text', text: { body: text } }),
  });
  return ((await response.json()) as { messages: { id: string }[] }).messages[0]?.id ?? '';
}

test('when the sandbox restarts, then its lists and chats are as before, and continue', async () => {
  await sandbox.kapso.customerSends({ from: PHONE, name: 'Ana', text: 'hello' });
  await sandbox.kapso.waitForStatus(await reply('hi Ana'), 'read', 3_000);
  const [before, chat] = [await list(), sandbox.kapso.chat(PHONE)];
  expect(before).toHaveLength(2);
  expect(chat.map(({ text, statuses }) => [text, statuses])).toEqual([
    ['hello', ['taken']],
    ['hi Ana', ['sent', 'delivered', 'read']],
  ]);
  await restart();
  expect([await list(), sandbox.kapso.chat(PHONE)]).toEqual([before, chat]);
  await sandbox.kapso.customerSends({ from: PHONE, text: 'again' });
  expect(sandbox.kapso.chat(PHONE).map(({ text }) => text)).toEqual(['hello', 'hi Ana', 'again']);
});

test('when it restarts before a reply was delivered, then the ticks that are missing come then, once', async () => {
  await restart({ sent: 5, delivered: 60_000, read: 60_001 });
  const wamid = await reply('hi Ana');
  await sandbox.kapso.waitForStatus(wamid, 'sent', 3_000);
  await sandbox.close();
  // As if it had been down for a minute.
  const rows = new Journal<RememberedMessage>(join(folder, 'chats.jsonl'), 10);
  for (const row of rows.rows()) rows.write(wamid, { ...row, message: { ...row.message, createdAtMs: row.message.createdAtMs - 60_000 } });
  await start();
  await sandbox.kapso.waitForStatus(wamid, 'read', 3_000);
  await sandbox.kapso.settled();
  const events = receiver.webhooks.filter(({ raw }) => raw.includes(wamid)).map(({ event }) => event);
  expect(events).toEqual(['whatsapp.message.sent', 'whatsapp.message.delivered', 'whatsapp.message.read']);
});

test('when it was killed in the middle of a line, then only that line is lost', async () => {
  await sandbox.kapso.customerSends({ from: PHONE, text: 'hello' });
  appendFileSync(join(folder, 'chats.jsonl'), '{"key":"wamid.x","row":{"message":{"wam');
  await restart();
  expect(sandbox.kapso.chat(PHONE).map(({ text }) => text)).toEqual(['hello']);
});

test('when it restarts during a call, then the call continues to its end, and its report is sent', async () => {
  const { id } = sandbox.vapi.receiveCall({ from: `+${PHONE}`, baseUrl: sandbox.vapiUrl });
  await sandbox.vapi.waitForStatus(id, 'ringing', 3_000);
  await sandbox.close();
  // As if it had been down for a minute.
  const file = join(folder, 'calls.jsonl');
  const rows = new Journal<{ id: string; createdAtMs: number }>(file, 10);
  for (const row of rows.rows()) rows.write(row.id, { ...row, createdAtMs: row.createdAtMs - 60_000 });
  await start();
  expect(sandbox.vapi.calls()).toMatchObject([{ id, status: 'ringing' }]);
  await sandbox.vapi.waitForStatus(id, 'ended', 20_000);
  await sandbox.vapi.settled();
  expect(receiver.webhooks.filter(({ raw }) => raw.includes('end-of-call-report') && raw.includes(id))).toHaveLength(1);
  await restart();
  await sandbox.vapi.settled();
  expect(sandbox.vapi.counts().active).toBe(0);
  expect(receiver.webhooks.filter(({ raw }) => raw.includes('end-of-call-report') && raw.includes(id))).toHaveLength(1);
}, 30_000);

test('when rows are written again and again, then the file stays small, and the newest rows are in it', () => {
  const file = join(folder, 'rows.jsonl');
  const journal = new Journal<{ version: number }>(file, 10);
  for (let version = 0; version < 1_000; version++) journal.write(`row-${version % 20}`, { version });
  expect(readFileSync(file, 'utf8').split('\n').length).toBeLessThan(45);
  const [newest] = new Journal<{ version: number }>(file, 10).rows().slice(-1);
  expect(newest).toEqual({ version: expect.any(Number) });
  expect(new Journal<{ version: number }>(file, 10).rows().map(({ version }) => version)).toContain(999);
});
