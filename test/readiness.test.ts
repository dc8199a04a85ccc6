/** PostgreSQL or Temporal is away for one system: `/readyz` says which, and everything goes on by itself when it is back. */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { freePort } from '../src/local/embedded/ports';
import { type TestDatabase, testDatabase, testTemporal } from './support/engine';
import { balance, eventually, inboundOf, newPhone, outcomesOf, workflowIdOf } from './support/expectations';
import { startProxy, type TcpProxy } from './support/proxy';
import { inherited, type System, startProcess, startSystem, VAPI_WEBHOOK_SECRET } from './support/system';

let database: TestDatabase;
let postgres: TcpProxy;
let temporal: TcpProxy;
let system: System;

// The servers are the whole run's: only this system's way to them is cut.
beforeAll(async () => {
  database = await testDatabase('readiness');
  const direct = new URL(database.url);
  postgres = await startProxy(direct.host);
  temporal = await startProxy(testTemporal().address);
  const proxied = new URL(database.url);
  proxied.port = String(postgres.port);
  system = await startSystem({
    databaseUrl: database.url,
    temporalAddress: testTemporal().address,
    environment: () => ({ DATABASE_URL: proxied.href, TEMPORAL_ADDRESS: `127.0.0.1:${temporal.port}` }),
  });
});

afterAll(async () => {
  await system?.close();
  await Promise.all([postgres?.close(), temporal?.close()]);
  await database?.drop();
});

const TEXTS = ['one', 'two', 'three'];

const ready = async () => {
  const answer = await fetch(`${system.apiUrl}/readyz`);
  return [answer.status, await answer.json()];
};
const ALL_UP = [200, { ready: true, temporal: true, postgres: true, started: true }];

const message = (phone: string) => ({ messages: [{ from: phone, id: `wamid.${randomUUID()}`, text: { body: 'hi' } }] });

async function expectAnsweredOnce(phone: string): Promise<void> {
  await system.sandbox.kapso.waitForVisible(phone, 1, 30_000);
  expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
  await system.sandbox.kapso.settled();
  expect(system.sandbox.kapso.visibleTo(phone)).toHaveLength(1);
  await balance(system.db);
}

test.each([
  ['is down', () => postgres.down()],
  ['cannot be reached', () => postgres.hang()],
])('when PostgreSQL %s, then readyz names it, messages are taken all the same, and are answered when it is back', async (_what, goAway) => {
  expect(await ready()).toEqual(ALL_UP);
  await goAway();
  const phone = newPhone();
  try {
    expect(await ready()).toEqual([503, { ready: false, temporal: true, postgres: false, started: true }]);
    expect((await fetch(`${system.apiUrl}/healthz`)).status).toBe(200);
    expect((await system.sandbox.kapso.deliver(message(phone))).status).toBe(200);
  } finally {
    await postgres.up();
  }
  await eventually(async () => expect(await ready()).toEqual(ALL_UP), 30_000);
  await expectAnsweredOnce(phone);
});

test.each([
  ['is down', () => postgres.down()],
  ['cannot be reached', () => postgres.hang()],
])(
  'when PostgreSQL %s, then Temporal keeps statuses, call events and what cannot be read, and they are stored when it is back',
  async (_what, goAway) => {
    const [providerMessageId, providerCallId] = [`wamid.${randomUUID()}`, randomUUID()];
    const event = JSON.parse(readFileSync('test/fixtures/vapi/status-update.ringing.json', 'utf8')) as { message: { call: object } };
    const letters = await system.db.deadLetter.count();
    await goAway();
    try {
      const statuses = [{ id: providerMessageId, status: 'delivered', timestamp: '1795165200' }];
      const answers = await Promise.all([
        system.sandbox.kapso.deliver({ phone_number_id: system.phoneNumberId, statuses }),
        system.sandbox.kapso.deliver({ message: { odd: providerMessageId } }),
        eventually(async () => {
          const answer = await fetch(`${system.apiUrl}/api/v1/vapi/webhooks/vapi`, {
            method: 'POST',
            headers: { 'Content-Type': 'application/json', 'X-Vapi-Secret': VAPI_WEBHOOK_SECRET },
            body: JSON.stringify({ message: { ...event.message, call: { ...event.message.call, id: providerCallId } } }),
          });
          expect(answer.status).toBe(200);
          return answer;
        }),
      ]);
      // A busy machine may need longer than the 1.5 s of a webhook, for which it gets a 503; senders repeat it.
      expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
    } finally {
      await postgres.up();
    }
    await eventually(async () => {
      expect(await system.db.messageStatusEvent.count({ where: { providerMessageId } })).toBe(1);
      expect(await system.db.vapiCallEvent.count({ where: { providerCallId } })).toBe(1);
      expect(await system.db.deadLetter.count()).toBe(letters + 1);
    }, 60_000);
  },
  90_000,
);

test.each([
  ['API', 'src/processes/server.ts', 'api listening'],
  ['worker', 'src/processes/worker.ts', 'trying again'],
])('when the %s is told to stop before it has reached PostgreSQL, then it stops as it should', async (_name, entry, message) => {
  await postgres.down();
  try {
    const environment = { ...system.environment, PORT: String(await freePort(0)), TEMPORAL_TASK_QUEUE: `${system.taskQueue}-stopped` };
    const early = await startProcess('early', entry, environment, message);
    await early.line('trying again');
    expect(await early.stop()).toBe(0);
    expect(early.lines.join()).not.toContain('"level":"fatal"');
  } finally {
    await postgres.up();
  }
});

test.each(['src/processes/server.ts', 'src/processes/worker.ts'])(
  'when the parent of %s is gone before it has loaded, then it ends',
  async (entry) => {
    const env = {
      ...inherited(),
      ...system.environment,
      PORT: String(await freePort(0)),
      TEMPORAL_TASK_QUEUE: `${system.taskQueue}-orphan`,
    };
    const orphan = spawn(process.execPath, ['--import', 'tsx', entry], { env, stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    orphan.disconnect();
    try {
      expect(await once(orphan, 'exit', { signal: AbortSignal.timeout(30_000) })).toEqual([0, null]);
    } finally {
      orphan.kill('SIGKILL');
    }
  },
);

test('when nobody reads its log any more, then the API answers all the same, and ends when it is told to', async () => {
  const port = String(await freePort(0));
  const env = { ...inherited(), ...system.environment, PORT: port, UNSIGNED_WEBHOOK_RATE_LIMIT_PER_MINUTE: '100000' };
  const api = spawn(process.execPath, ['--import', 'tsx', 'src/processes/server.ts'], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(api, 'exit');
  try {
    await eventually(async () => expect((await fetch(`http://127.0.0.1:${port}/healthz`)).status).toBe(200), 30_000);
    // Each refused webhook is a line: far more than a pipe holds.
    const refuse = async () => {
      for (let count = 0; count < 1_000; count += 1) {
        const answer = await fetch(`http://127.0.0.1:${port}/webhook/kapso`, {
          method: 'POST',
          body: '{}',
          signal: AbortSignal.timeout(5_000),
        });
        expect([answer.status, await answer.json()]).toEqual([401, expect.anything()]);
      }
    };
    await Promise.all(Array.from({ length: 6 }, refuse));
    api.kill('SIGTERM');
    expect(await Promise.race([ended, once(AbortSignal.timeout(10_000), 'abort')])).toEqual([0, null]);
  } finally {
    api.kill('SIGKILL');
  }
});

test.each([
  ['is down', () => temporal.down()],
  ['cannot be reached', () => temporal.hang()],
])(
  'when Temporal %s, then readyz names it, messages are taken all the same, and are answered in order when it is back',
  async (_what, goAway) => {
    expect(await ready()).toEqual(ALL_UP);
    await goAway();
    const phone = newPhone();
    try {
      expect(await ready()).toEqual([503, { ready: false, temporal: false, postgres: true, started: true }]);
      expect((await fetch(`${system.apiUrl}/healthz`)).status).toBe(200);
      for (const text of TEXTS)
        expect(await system.sandbox.kapso.customerSends({ from: phone, text })).toMatchObject({ status: 200, attempts: 1 });
      const [, { warnings }] = (await eventually(async () => {
        const answer = await ready();
        expect(answer[1]).toHaveProperty('warnings');
        return answer;
      })) as [number, { warnings: { kind: string; text: string }[] }];
      expect(warnings).toEqual([
        { kind: 'spool', text: expect.stringMatching(/^\d webhook events wait for Temporal, the oldest for \d+ s$/) },
      ]);
      expect(await (await fetch(`${system.apiUrl}/metrics`)).text()).toContain('parley_spooled_requests 3');
    } finally {
      await temporal.up();
    }
    await eventually(async () => expect(await ready()).toEqual(ALL_UP), 60_000);
    await outcomesOf(system, phone, TEXTS.length, 60_000);
    expect((await inboundOf(system, phone)).map(({ text }) => text)).toEqual(TEXTS);
    await system.sandbox.kapso.settled();
    await balance(system.db);
    expect(await (await fetch(`${system.apiUrl}/metrics`)).text()).toContain('parley_spooled_requests 0');
  },
  // The worker notices after 45 s that a connection is dead.
  150_000,
);

test('when Temporal stored a message but its answer was lost, then the message is recorded and answered once', async () => {
  const phone = newPhone();
  expect((await system.sandbox.kapso.customerSends({ from: phone, text: 'before' })).status).toBe(200);
  await outcomesOf(system, phone, 1);
  temporal.holdAnswers();
  try {
    expect((await system.sandbox.kapso.customerSends({ from: phone, text: 'hi' })).status).toBe(200);
    expect(await system.db.spooledRequest.count({ where: { relayedAt: null } })).toBe(1);
  } finally {
    temporal.releaseAnswers();
  }
  await eventually(async () => expect(await system.db.spooledRequest.count({ where: { relayedAt: null } })).toBe(0), 60_000);
  expect(await outcomesOf(system, phone, 2, 60_000)).toEqual(['answered', 'answered']);
  await system.sandbox.kapso.settled();
  expect(system.sandbox.kapso.visibleTo(phone)).toHaveLength(2);
  const handle = system.temporal.workflow.getHandle(await workflowIdOf(system, phone));
  expect(await handle.query('conversationState')).toMatchObject({ messages: 2, duplicatesDropped: 1 });
});

test('when the API is killed while messages wait, then the next one delivers them', async () => {
  const phone = newPhone();
  await temporal.down();
  try {
    expect((await system.sandbox.kapso.customerSends({ from: phone, text: 'hi' })).status).toBe(200);
    await system.api.kill();
  } finally {
    await temporal.up();
  }
  system.api = await system.startApi();
  await expectAnsweredOnce(phone);
});
