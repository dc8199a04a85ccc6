/** The recording over real HTTP, from a vendor that answers with a short-lived address of a store, as Vapi does. */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import express from 'express';
import { type TestDatabase, testDatabase } from '../../test/support/engine';
import { eventually } from '../../test/support/expectations';
import type { Access } from '../http/access';
import { errorHandler } from '../http/errors';
import { type Database, openDatabase } from '../platform/database';
import { createLogger } from '../platform/logger';
import { readLocation, recordingRoutes } from './recording';

const SOUND = Buffer.from(Array.from({ length: 5_000 }, (_, index) => index % 251));
const SECRET_PART = 'presigned-secret-signature';

let database: TestDatabase;
let db: Database;
let apiUrl: string;
let apiServer: Server;
const servers: Server[] = [];
const lines: string[] = [];
/** What the doubles do now, and what they saw. */
let vendor: RequestListener;
let store: RequestListener;
let seenByStore: IncomingMessage[] = [];
let storeUrl: string;

async function listen(listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  servers.push(server);
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const redirecting: RequestListener = (request, response) => {
  if (request.headers.authorization !== 'Bearer vendor-key') return void response.writeHead(401).end();
  response.writeHead(302, { Location: `${storeUrl}/sound.wav?sig=${SECRET_PART}` }).end();
};

const withRanges: RequestListener = (request, response) => {
  const headers = { 'Content-Type': 'audio/wav', 'Accept-Ranges': 'bytes', ETag: '"v1"' };
  if (request.headers['if-none-match'] === '"v1"') return void response.writeHead(304, headers).end();
  const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? [];
  if (from === undefined) return void response.writeHead(200, { ...headers, 'Content-Length': SOUND.length }).end(SOUND);
  if (Number(from) >= SOUND.length)
    return void response.writeHead(416, { ...headers, 'Content-Range': `bytes */${SOUND.length}` }).end('no such part');
  const part = SOUND.subarray(Number(from), to ? Number(to) + 1 : undefined);
  const range = `bytes ${from}-${Number(from) + part.length - 1}/${SOUND.length}`;
  response.writeHead(206, { ...headers, 'Content-Range': range, 'Content-Length': part.length }).end(part);
};

beforeAll(async () => {
  database = await testDatabase('recording');
  db = openDatabase(database.url);
  const vendorUrl = await listen((request, response) => vendor(request, response));
  storeUrl = await listen((request, response) => {
    seenByStore.push(request);
    store(request, response);
  });
  const logger = createLogger('test', 'debug', { write: (line) => lines.push(line) });
  const app = express();
  const access: Access = { name: 'test', keyId: undefined, role: 'admin', workspaceId: undefined };
  app.use((_request, response, next) => {
    response.locals.access = access;
    next();
  });
  app.use('/calls', recordingRoutes({ db, settingsOf: async () => ({ VAPI_BASE_URL: vendorUrl, VAPI_API_KEY: 'vendor-key' }), logger }));
  app.use(errorHandler(logger));
  apiUrl = await listen(app);
  apiServer = servers.at(-1) as Server;
});

beforeEach(() => {
  vendor = redirecting;
  store = withRanges;
  seenByStore = [];
});

afterAll(async () => {
  for (const server of servers) {
    server.closeAllConnections();
    server.close();
  }
  await db?.close();
  await database?.drop();
});

async function call(fields: { providerCallId?: string | null; recordingUrl?: string | null; doneAt?: Date | null } = {}): Promise<string> {
  const id = randomUUID();
  const row = { providerCallId: `p-${id}`, recordingUrl: 'https://storage.example/recording.wav', doneAt: new Date(), ...fields };
  await db.orm.vapiCallResult.create({ data: { id, workflowId: `call-${id}`, direction: 'outbound', ...row } });
  return id;
}

const get = (id: string, init: RequestInit = {}) => fetch(`${apiUrl}/calls/${id}/recording`, init);

test('when the recording is requested by our id or the provider’s, then it is streamed, and its URL is not revealed', async () => {
  const id = await call();
  for (const name of [id, `p-${id}`]) {
    const answer = await get(name);
    expect(answer.status).toBe(200);
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      'content-type': 'audio/wav',
      'content-length': '5000',
      'accept-ranges': 'bytes',
      etag: '"v1"',
    });
    expect(Buffer.from(await answer.arrayBuffer()).equals(SOUND)).toBe(true);
    expect(JSON.stringify([...answer.headers])).not.toContain(SECRET_PART);
  }
  expect(seenByStore.map(({ headers }) => headers.authorization)).toEqual([undefined, undefined]);
  expect(lines.join('')).not.toContain(SECRET_PART);
});

test('when a range is requested, then the response has it; a range outside the recording is 416', async () => {
  const id = await call();
  const part = await get(id, { headers: { Range: 'bytes=100-199' } });
  expect([part.status, part.headers.get('content-range'), part.headers.get('content-length')]).toEqual([206, 'bytes 100-199/5000', '100']);
  expect(Buffer.from(await part.arrayBuffer()).equals(SOUND.subarray(100, 200))).toBe(true);
  const beyond = await get(id, { headers: { Range: 'bytes=9000-' } });
  expect([beyond.status, beyond.headers.get('content-range'), await beyond.json()]).toEqual([
    416,
    'bytes */5000',
    expect.objectContaining({ status: 416 }),
  ]);
});

test('when the client already has it, then the response is 304 without a body', async () => {
  const answer = await get(await call(), { headers: { 'If-None-Match': '"v1"' } });
  expect([answer.status, await answer.text()]).toEqual([304, '']);
});

test('when only the headers are requested, then the response has no body, and the storage gets a GET', async () => {
  const answer = await get(await call(), { method: 'HEAD' });
  expect([answer.status, answer.headers.get('content-length'), answer.headers.get('content-type')]).toEqual([200, '5000', 'audio/wav']);
  expect(await answer.text()).toBe('');
  expect(seenByStore.map(({ method }) => method)).toEqual(['GET']);
});

test('when there is nothing to give, then the answer is 404 and says why', async () => {
  const detail = async (id: string) => {
    const answer = await get(id);
    expect(answer.headers.get('content-type')).toContain('application/problem+json');
    return [answer.status, ((await answer.json()) as { detail: string }).detail];
  };
  expect(await detail(randomUUID())).toEqual([404, 'no such call']);
  expect(await detail('%00')).toEqual([404, 'no such call']);
  expect(await detail(await call({ doneAt: null }))).toEqual([404, expect.stringContaining('not done yet')]);
  expect(await detail(await call({ recordingUrl: null }))).toEqual([404, 'the call has no recording']);
  vendor = (_request, response) => response.writeHead(404).end();
  expect(await detail(await call())).toEqual([404, expect.stringContaining('Vapi has no recording')]);
});

test.each<[string, RequestListener, number, string | null]>([
  ['is busy', (_request, response) => response.writeHead(429, { 'Retry-After': '3' }).end(), 503, '3'],
  ['is overloaded', (_request, response) => response.writeHead(503).end(), 503, '5'],
  ['is broken', (_request, response) => response.writeHead(500).end('at Vapi.inside()'), 502, null],
  ['refuses our key', (_request, response) => response.writeHead(401).end(), 502, null],
  ['names no address', (_request, response) => response.writeHead(302).end(), 502, null],
  ['names a file', (_request, response) => response.writeHead(302, { Location: 'file:///etc/passwd' }).end(), 502, null],
  ['hangs up', (request) => request.socket.destroy(), 502, null],
])('when Vapi %s, then the answer is a problem that tells nothing of the inside', async (_what, listener, status, retryAfter) => {
  vendor = listener;
  const answer = await get(await call());
  expect([answer.status, answer.headers.get('retry-after')]).toEqual([status, retryAfter]);
  expect(await answer.json()).toEqual({
    type: 'about:blank',
    title: expect.any(String),
    status,
    detail: expect.not.stringContaining('inside'),
    id: expect.any(String),
  });
});

test('when the store refuses, or is gone, then the answer is 502, and the address stands in no log line', async () => {
  store = (_request, response) => response.writeHead(403).end('<Error>expired</Error>');
  expect((await get(await call())).status).toBe(502);
  vendor = (_request, response) => response.writeHead(302, { Location: `http://127.0.0.1:1/x?sig=${SECRET_PART}` }).end();
  expect((await get(await call())).status).toBe(502);
  expect(lines.filter((line) => line.includes('recording not fetched')).length).toBeGreaterThanOrEqual(2);
  expect(lines.join('')).not.toContain(SECRET_PART);
});

test('when the store sends on to another place, then nobody goes there', async () => {
  let visits = 0;
  const elsewhere = await listen((_request, response) => {
    visits += 1;
    response.end(SOUND);
  });
  store = (_request, response) => response.writeHead(302, { Location: `${elsewhere}/metadata` }).end();
  const answer = await get(await call());
  expect([answer.status, visits]).toEqual([502, 0]);
  expect(JSON.stringify(await answer.json())).not.toContain(elsewhere);
});

test('when Vapi is called over TLS but returns a URL without it, then the URL is not used', () => {
  const path = '/call/1/mono-recording';
  expect(() => readLocation('http://storage.example/sound.wav', `https://vapi.example${path}`)).toThrow('no URL');
  expect(readLocation('https://storage.example/sound.wav', `https://vapi.example${path}`).protocol).toBe('https:');
  expect(readLocation('http://storage.example/sound.wav', `http://vapi.example${path}`).protocol).toBe('http:');
});

test('when the client disconnects while the database is read, then Vapi is not called', async () => {
  const asked: (string | undefined)[] = [];
  vendor = (request, response) => {
    asked.push(request.url);
    redirecting(request, response);
  };
  const [left, stayed] = [await call(), await call()];
  const closed = new Promise<void>((resolve) => {
    apiServer.once('request', (_request, response) => response.once('close', () => resolve()));
  });
  const leaving = new AbortController();
  await db.orm.$transaction(async (locked) => {
    await locked.$executeRaw`LOCK TABLE vapi_call_results IN ACCESS EXCLUSIVE MODE`;
    const given = get(left, { signal: leaving.signal }).catch(() => undefined);
    const isBlocked = async () => expect(await locked.$queryRaw`SELECT FROM pg_locks WHERE NOT granted`).toHaveLength(1);
    await eventually(isBlocked);
    leaving.abort();
    await given;
    await closed;
  });
  await (await get(stayed)).arrayBuffer();
  expect(asked).toEqual([`/call/p-${stayed}/mono-recording`]);
});

test('when the store says that it is HTML, then nobody is told to run it', async () => {
  store = (_request, response) => response.writeHead(200, { 'Content-Type': 'text/html' }).end('<script>');
  expect((await get(await call())).headers.get('content-type')).toBe('application/octet-stream');
});

test('when the client disconnects in the middle, then the request to the storage is aborted', async () => {
  const storeClosed = new Promise<void>((resolve) => {
    store = (_request, response) => {
      response.once('close', () => resolve());
      response.writeHead(200, { 'Content-Type': 'audio/wav', 'Content-Length': 1_000_000 });
      response.write(SOUND);
    };
  });
  const leaving = new AbortController();
  const answer = await get(await call(), { signal: leaving.signal });
  const reader = answer.body?.getReader();
  await reader?.read();
  leaving.abort();
  await reader?.read().catch(() => undefined);
  await storeClosed;
});

test('when the client disconnects before Vapi responds, then the request to Vapi is aborted', async () => {
  const leaving = new AbortController();
  const vendorClosed = new Promise<void>((resolve) => {
    vendor = (request) => {
      request.once('close', () => resolve());
      leaving.abort();
    };
  });
  await expect(get(await call(), { signal: leaving.signal })).rejects.toThrow();
  await vendorClosed;
});

test('when the storage fails in the middle, then the client’s connection is aborted, not ended', async () => {
  store = (request, response) => {
    response.writeHead(200, { 'Content-Type': 'audio/wav', 'Transfer-Encoding': 'chunked' });
    response.write(SOUND, () => request.socket.destroy());
  };
  const answer = await get(await call());
  expect(answer.status).toBe(200);
  await expect(answer.arrayBuffer()).rejects.toThrow();
});
