/**
 * Two businesses on one installation, with real processes: each uses its own accounts, sees nothing of the other, and can be deleted while
 * it talks. No secret that was planted, in the environment or in the database, is found anywhere but encrypted.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Client } from 'pg';
import { signatureFor } from '../src/providers/kapso/signature';
import { request } from './support/calls';
import { eventually, inboundOf, newPhone, outcomesOf, workflowIdOf } from './support/expectations';
import { startSuite } from './support/suite';
import type { System } from './support/system';

const ENCRYPTION_KEY = randomBytes(32).toString('base64');
const WEBHOOK_SECRET = 'planted-webhook-secret-of-the-second';

/** What reached a provider, and with which key. */
interface Reached {
  provider: 'kapso' | 'model';
  path: string;
  key: string;
  body: string;
}

let system: System;
/** In front of the doubles: they take any key, and this remembers which. */
let between: Server;
const reached: Reached[] = [];
let number: string;
let workspaceId: string;

beforeAll(async () => {
  let targets = { kapso: '', model: '' };
  between = createServer((incoming, outgoing) => {
    const chunks: Buffer[] = [];
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
    incoming.on('end', () => {
      const body = Buffer.concat(chunks);
      const provider = incoming.url?.startsWith('/model') ? 'model' : 'kapso';
      const path = (incoming.url ?? '').slice(`/${provider}`.length);
      const {
        host: _host,
        connection: _connection,
        'content-length': _length,
        'transfer-encoding': _encoding,
        ...headers
      } = incoming.headers;
      const key = String(headers['x-api-key'] ?? headers.authorization ?? '').replace('Bearer ', '');
      reached.push({ provider, path, key, body: body.toString() });
      const { method = 'GET' } = incoming;
      fetch(`${targets[provider]}${path}`, { method, headers: headers as Record<string, string>, ...(method === 'GET' ? {} : { body }) })
        .then(async (answer) => {
          outgoing.writeHead(answer.status, { 'Content-Type': answer.headers.get('content-type') ?? 'application/json' });
          outgoing.end(Buffer.from(await answer.arrayBuffer()));
        })
        .catch(() => outgoing.destroy());
    });
  }).listen(0, '127.0.0.1');
  await once(between, 'listening');
  const url = `http://127.0.0.1:${(between.address() as AddressInfo).port}`;
  system = await startSuite('workspaces', {
    environment: (sandbox) => {
      targets = { kapso: sandbox.url, model: sandbox.modelsUrl };
      return {
        ENCRYPTION_KEY,
        // Not the sandbox's own address: to Parley, everything is real.
        KAPSO_BASE_URL: `${url}/kapso`,
        KAPSO_API_KEY: 'planted-kapso-key-of-the-environment',
        OPENAI_BASE_URL: `${url}/model`,
        OPENAI_API_KEY: 'planted-openai-key-of-the-environment',
        AI_PROVIDERS: 'openai:a-model',
        TIME_ZONE: 'UTC',
        LOG_LEVEL: 'trace',
        VAPI_API_KEY: '',
      };
    },
  });
  number = `2${Date.now()}`;
  const { body, status } = await request<{ id: string }>(system, 'POST', '/api/v1/workspaces', {
    body: {
      ...{ name: 'Second', kapsoPhoneNumberId: number, timeZone: 'Pacific/Kiritimati' },
      settings: { chatbotEnabled: true, aiEnabled: true, providerChain: ['openai:a-model'] },
      credentials: {
        kapsoApiKey: 'planted-kapso-key-of-the-second',
        kapsoWebhookSecrets: [WEBHOOK_SECRET],
        openaiApiKey: 'planted-openai-key-of-the-second',
      },
    },
  });
  expect(status).toBe(201);
  workspaceId = body.id;
  await system.db.chatbotSettings.update({
    where: { workspaceId },
    data: { quietMs: 0 },
  });
});

afterAll(async () => {
  await system?.close();
  between?.close();
});

/** The system, as seen from the second business. */
const second = (phoneNumberId = number): System => ({ ...system, phoneNumberId });

/** A customer writes to a number, with a webhook signed by its business. */
async function writeTo(phoneNumberId: string, phone: string, text: string): Promise<number> {
  const body = JSON.stringify({
    message: {
      ...{ id: `wamid.${randomUUID()}`, type: 'text', from: phone, text: { body: text }, kapso: { direction: 'inbound' } },
      timestamp: String(Math.floor(Date.now() / 1_000)),
    },
    conversation: { phone_number: phone },
    phone_number_id: phoneNumberId,
  });
  const headers = {
    'Content-Type': 'application/json',
    'X-Webhook-Event': 'whatsapp.message.received',
    'X-Webhook-Signature': signatureFor(Buffer.from(body), WEBHOOK_SECRET),
  };
  return (await fetch(`${system.apiUrl}/webhook/kapso`, { method: 'POST', headers, body })).status;
}

const keysOf = (provider: Reached['provider'], text: string) => [
  ...new Set(reached.filter((each) => each.provider === provider && each.body.includes(text)).map(({ key }) => key)),
];

test('when customers write to both, then each is answered with its own accounts, and in its own time zone', async () => {
  const [mine, other] = [newPhone(), newPhone()];
  await system.sandbox.kapso.customerSends({ from: mine, text: 'text-for-the-first' });
  expect(await writeTo(number, other, 'text-for-the-second')).toBe(200);
  expect(await outcomesOf(system, mine, 1)).toEqual(['answered']);
  expect(await outcomesOf(second(), other, 1)).toEqual(['answered']);
  expect(keysOf('model', 'text-for-the-first')).toEqual(['planted-openai-key-of-the-environment']);
  expect(keysOf('model', 'text-for-the-second')).toEqual(['planted-openai-key-of-the-second']);
  expect(keysOf('kapso', `+${mine}`)).toEqual(['planted-kapso-key-of-the-environment']);
  expect(keysOf('kapso', `+${other}`)).toEqual(['planted-kapso-key-of-the-second']);
  const prompts = (text: string) => reached.find(({ provider, body }) => provider === 'model' && body.includes(text))?.body;
  expect(prompts('text-for-the-first')).toContain('UTC');
  expect(prompts('text-for-the-second')).toContain('Pacific/Kiritimati');
});

test('when a key is replaced, then the next sends use the new one, without a restart', async () => {
  const credentials = { kapsoApiKey: 'planted-kapso-key-after-rotation' };
  expect((await request(system, 'PATCH', `/api/v1/workspaces/${workspaceId}`, { body: { credentials } })).status).toBe(200);
  await eventually(async () => {
    const phone = newPhone();
    await writeTo(number, phone, 'hello');
    await outcomesOf(second(), phone, 1);
    expect(keysOf('kapso', `+${phone}`)).toEqual(['planted-kapso-key-after-rotation']);
  });
});

test('when workflows and metrics are searched, then each workflow names its own number only, and metrics name neither', async () => {
  const numbersOf = new Map<string, unknown>();
  await eventually(async () => {
    numbersOf.clear();
    for await (const { workflowId, searchAttributes } of system.temporal.workflow.list({ query: `TaskQueue = '${system.taskQueue}'` }))
      if (workflowId.startsWith('conversation-')) numbersOf.set(workflowId, searchAttributes.ParleyWorkspace);
    expect(new Set([...numbersOf.values()].flat())).toEqual(new Set([number, system.phoneNumberId]));
  });
  for (const [workflowId, named] of numbersOf) expect(workflowId).toContain(`conversation-${String(named)}-`);
  const metrics = await (await fetch(`${system.apiUrl}/metrics`)).text();
  for (const secret of [number, system.phoneNumberId, workspaceId, 'Second']) expect(metrics).not.toContain(secret);
});

describe('deleting a workspace', () => {
  async function aBusiness(): Promise<{ id: string; phoneNumberId: string }> {
    const phoneNumberId = `3${Date.now()}${Math.floor(Math.random() * 1_000)}`;
    const credentials = { kapsoWebhookSecrets: [WEBHOOK_SECRET] };
    const body = { name: 'Third', kapsoPhoneNumberId: phoneNumberId, credentials };
    const { body: created } = await request<{ id: string }>(system, 'POST', '/api/v1/workspaces', { body });
    const settings = { chatbotEnabled: true, aiEnabled: true, providerChain: ['openai:slow-model'], quietMs: 0 };
    await system.db.chatbotSettings.update({ where: { workspaceId: created.id }, data: settings });
    return { id: created.id, phoneNumberId };
  }
  const remove = async (id: string) => {
    const { status } = await request(system, 'DELETE', `/api/v1/workspaces/${id}?withConversations=true`);
    expect(status).toBe(204);
  };

  test.each([
    ['between two messages', 0],
    ['while a model thinks', 2_000],
  ])('when it is deleted %s, then its conversation ends by itself, and what still comes is parked', async (_when, delayMs) => {
    const { models } = system.sandbox;
    const done = models.program({ model: 'slow-model', reply: 'ok', ...(delayMs > 0 ? { delayMs } : {}) });
    const { id, phoneNumberId } = await aBusiness();
    const phone = newPhone();
    const asked = models.count('slow-model');
    await writeTo(phoneNumberId, phone, 'a-text-of-the-third');
    if (delayMs === 0) await outcomesOf(second(phoneNumberId), phone, 1);
    else await models.waitForRequests('slow-model', asked + 1, 10_000);
    const workflowId = await workflowIdOf(second(phoneNumberId), phone);
    await eventually(async () => {
      // As soon as Temporal's list has the workflow, which the deletion reads.
      const { count } = await system.temporal.workflow.count(`WorkflowId = '${workflowId}'`);
      expect(count).toBe(1);
    });
    await remove(id);
    await eventually(async () => {
      const { status } = await system.temporal.workflow.getHandle(workflowId).describe();
      expect(['COMPLETED', 'CANCELLED']).toContain(status.name);
    });
    const sends = () => reached.filter(({ provider, path }) => provider === 'kapso' && path.includes(phoneNumberId)).length;
    expect(sends()).toBe(delayMs === 0 ? 1 : 0);
    expect(await inboundOf(second(phoneNumberId), phone)).toEqual([]);
    done();
    // A new webhook has no secret of its own any more.
    await eventually(async () => expect(await writeTo(phoneNumberId, phone, 'late')).toBe(401));
  });
});

describe('secrets', () => {
  const columns = `SELECT table_name AS "table" FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'`;

  async function everyRow(): Promise<string> {
    const client = new Client({ connectionString: system.databaseUrl });
    await client.connect();
    try {
      const { rows } = await client.query<{ table: string }>(columns);
      const texts: { text: string }[] = [];
      for (const { table } of rows)
        texts.push(...(await client.query<{ text: string }>(`SELECT to_jsonb(t)::text AS text FROM "${table}" t`)).rows);
      expect(rows.length).toBeGreaterThan(15);
      return texts.map(({ text }) => text).join('\n');
    } finally {
      await client.end();
    }
  }

  async function everyHistory(): Promise<string> {
    const histories: string[] = [];
    for await (const { workflowId, runId } of system.temporal.workflow.list({ query: `TaskQueue = '${system.taskQueue}'` })) {
      const history = JSON.stringify(await system.temporal.workflow.getHandle(workflowId, runId).fetchHistory());
      histories.push(history.replace(/"data":"([^"]*)"/g, (_all, data: string) => Buffer.from(data, 'base64').toString()));
    }
    return histories.join('\n');
  }

  test('when everything is searched, then no planted secret is found in a row, an answer, a log line or a history', async () => {
    const { key } = (
      await request<{ key: string }>(system, 'POST', `/api/v1/workspaces/${workspaceId}/keys`, { body: { name: 'x', role: 'admin' } })
    ).body;
    const bodies = await Promise.all(
      ['workspaces', `workspaces/${workspaceId}`, `workspaces/${workspaceId}/keys`, 'audit', 'conversations', 'dead-letters'].map(
        async (path) => JSON.stringify((await request(system, 'GET', `/api/v1/${path}`)).body),
      ),
    );
    // A refusal must not quote what was sent either.
    const refused = await request(system, 'PATCH', `/api/v1/workspaces/${workspaceId}`, {
      body: { credentials: { kapsoApiKey: 'planted with spaces', unknown: 'planted-unknown' } },
    });
    expect(refused.status).toBe(400);
    const places = {
      rows: await everyRow(),
      answers: [...bodies, JSON.stringify(refused.body), await (await fetch(`${system.apiUrl}/metrics`)).text()].join('\n'),
      logs: [system.api, ...system.workers].flatMap(({ lines }) => lines).join('\n'),
      histories: await everyHistory(),
    };
    // The search finds what is there.
    expect(places.rows).toContain('text-for-the-second');
    expect(places.histories).toContain('text-for-the-second');
    expect(places.answers).toContain('Pacific/Kiritimati');
    expect(places.logs).toContain('reply send');
    for (const [place, text] of Object.entries(places))
      for (const secret of ['planted', ENCRYPTION_KEY, WEBHOOK_SECRET, key, system.environment.KAPSO_WEBHOOK_SECRET ?? ''])
        expect([place, text.includes(secret)]).toEqual([place, false]);
  });

  test('when ENCRYPTION_KEY is rotated, then an API and a worker with the new list still use the old rows', async () => {
    const rotated = { ENCRYPTION_KEY: `${randomBytes(32).toString('base64')},${ENCRYPTION_KEY}` };
    for (const worker of system.workers) await worker.stop();
    await system.api.stop();
    await system.startApi(rotated);
    await system.startWorker(rotated);
    const phone = newPhone();
    expect(await writeTo(number, phone, 'after the rotation')).toBe(200);
    expect(await outcomesOf(second(), phone, 1)).toEqual(['answered']);
    expect(keysOf('kapso', `+${phone}`)).toEqual(['planted-kapso-key-after-rotation']);
  });
});
