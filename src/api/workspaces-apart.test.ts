/**
 * Two workspaces on one installation: every operation of the OpenAPI document, asked by the keys of one about the other. A new operation is
 * walked without a change here, as long as its path parameters have a row in `plant` and its body an example in the document.
 */
import { createHash, randomUUID } from 'node:crypto';
import type { oas31 } from 'zod-openapi';
import { startTestApi, type TestApi } from '../../test/support/api';
import { API_KEY } from '../../test/support/system';
import { hashOfKey, workspaceKey } from '../http/access';
import { type Permission, permissionOf, ROLES, type Role } from '../http/permissions';
import { openApiDocument } from '../processes/openapi';

const METHODS = ['get', 'put', 'post', 'patch', 'delete'] as const;

interface Operation {
  name: string;
  method: string;
  path: string;
  permission: Permission;
  parameters: oas31.ParameterObject[];
  body: unknown;
}

/** Every operation that a key opens. */
const operations: Operation[] = Object.entries(openApiDocument().paths ?? {}).flatMap(([path, item]) =>
  METHODS.flatMap((method) => {
    const operation = item[method];
    const permission = operation && permissionOf(operation);
    if (!permission) return [];
    const parameters = (operation.parameters ?? []) as oas31.ParameterObject[];
    return [
      { name: `${method.toUpperCase()} ${path}`, method: method.toUpperCase(), path, permission, parameters, body: bodyOf(operation) },
    ];
  }),
);

/** The example of the document: with a wrong body, a 400 would hide whether the operation looks whose row it is. */
function bodyOf({ operationId, requestBody }: oas31.OperationObject): unknown {
  if (!requestBody) return undefined;
  const { example } = (requestBody as oas31.RequestBodyObject).content['application/json'] ?? {};
  if (example === undefined) throw new Error(`${operationId}: the body needs an example in the document`);
  return example;
}

let api: TestApi;
let mine: Planted;
let other: Planted;

beforeAll(async () => {
  api = await startTestApi('workspaces_apart', { API_RATE_LIMIT_PER_MINUTE: '100000' });
  mine = await plant('mine');
  other = await plant('other');
});

afterAll(async () => {
  await api?.close();
});

/** A workspace with one row of everything, each with the marker in its text. */
interface Planted {
  id: string;
  number: string;
  marker: string;
  keys: Record<Role, string>;
  /** Path parameters by the start of the path, most exact first. */
  ids: [path: string, ids: Record<string, string>][];
}

async function plant(name: string): Promise<Planted> {
  const marker = `planted-${name}-${randomUUID()}`;
  const number = String(10 ** 14 + Math.floor(Math.random() * 10 ** 12));
  const { orm } = api.db;
  const { id: workspaceId } = await orm.workspace.create({ data: { name: marker, kapsoPhoneNumberId: number, settings: { create: {} } } });
  const keys = {} as Record<Role, string>;
  const keyIds: string[] = [];
  for (const role of ROLES) {
    keys[role] = workspaceKey(createHash('sha256').update(`${marker} ${role}`).digest());
    const row = { workspaceId, name: marker, role, keyHash: hashOfKey(keys[role]), lastFour: 'xxxx', lastUsedAt: new Date() };
    keyIds.push((await orm.apiKey.create({ data: row })).id);
  }
  // Not one of those that ask, so that revoking it does not end the walk.
  const spare = { workspaceId, name: marker, role: 'caller' as const, keyHash: randomUUID(), lastFour: 'xxxx' };
  const { id: keyId } = await orm.apiKey.create({ data: spare });
  const contact = await orm.contact.create({
    data: {
      ...{ workspaceId, contactKey: marker, phone: PHONE, name: marker },
      aliases: { create: { kind: 'phone', value: PHONE, workspaceId } },
    },
  });
  const { id } = await orm.conversation.create({
    data: {
      ...{ workspaceId, contactId: contact.id, workflowId: `conversation-${number}-${name}`, lastMessageAt: new Date() },
      ...{ lastMessagePreview: marker, needsAttention: true },
      attention: [{ kind: 'turn_failed', since: new Date().toISOString(), text: marker }],
      messages: { create: { workspaceId, direction: 'inbound', kind: 'text', text: marker, status: 'received' } },
    },
    select: { id: true },
  });
  const merged = await orm.mergedConversation.create({ data: { id: randomUUID(), conversationId: id } });
  const { id: messageId } = await orm.message.findFirstOrThrow({ where: { conversationId: id }, select: { id: true } });
  const callId = randomUUID();
  await orm.vapiCallResult.create({
    data: {
      ...{ id: callId, workflowId: `call-${callId}`, providerCallId: `provider-${name}`, direction: 'outbound', workspaceId },
      ...{
        toNumber: `+${PHONE}`,
        serviceRequestId: 'SR-1',
        transcript: marker,
        summary: marker,
        recordingUrl: `https://${marker}.example/`,
      },
      ...{ status: 'ended', outcome: 'completed', doneAt: new Date(), needsAttention: true },
    },
  });
  const letter = { source: 'kapso', reason: 'no_sender', detail: marker, phoneNumberId: number, body: { marker }, digest: marker };
  const { id: letterId } = await orm.deadLetter.create({ data: letter });
  await orm.parkedMessage.create({
    data: {
      ...{ phoneNumberId: number, providerMessageId: marker, workflowId: marker, reason: 'no workspace has this number' },
      message: { kind: 'text', text: marker, contact: { name: marker } },
    },
  });
  const sync = { workspaceId, syncId: randomUUID(), status: 'failed', phase: 'messages', until: new Date(), problem: marker };
  await orm.historySync.create({ data: sync });
  await orm.auditEntry.create({ data: { workspaceId, actor: marker, action: 'key.created', subject: marker, after: { marker } } });
  return {
    ...{ id: workspaceId, number, marker, keys },
    ids: [
      ['/api/v1/dead-letters/', { id: letterId }],
      ['/api/v1/workspaces/', { id: workspaceId, keyId }],
      ['/api/v1/conversations/{id}/messages', { id: merged.id }],
      ['/api/v1/conversations/', { id }],
      ['/api/v1/messages/', { id: messageId }],
      ['/api/v1/vapi/calls/by-phone/', { phone: PHONE }],
      ['/api/v1/vapi/calls/', { callId }],
    ],
  };
}

/** One person who is a customer of both. */
const PHONE = '15550177';

function addressOf({ path, parameters }: Operation, { ids }: Planted): { url: string; namesOne: boolean } {
  const known = ids.find(([start]) => path.startsWith(start))?.[1] ?? {};
  const url = path.replace(/\{(\w+)\}/g, (_all, name: string) => {
    const value = known[name];
    if (value === undefined) throw new Error(`${path}: no row is planted for ${name}`);
    return value;
  });
  const required = parameters.filter(({ in: place, required = false }) => place === 'query' && required);
  if (required.length > 0) throw new Error(`${path}: needs ${required.map(({ name }) => name).join()}`);
  return { url, namesOne: /\{(?!phone)\w+\}/.test(path) };
}

async function ask(key: string, operation: Operation, url: string): Promise<{ status: number; text: string }> {
  const { method, body } = operation;
  const response = await fetch(`${api.apiUrl}${url}`, {
    method,
    headers: { Authorization: `Bearer ${key}`, 'Idempotency-Key': randomUUID(), 'Content-Type': 'application/json' },
    ...(method === 'GET' || method === 'DELETE' ? {} : { body: JSON.stringify(body ?? {}) }),
  });
  return { status: response.status, text: await response.text() };
}

/** Every row of a workspace in every table that has them, as text; without the time of a key's last use. */
async function rowsOf({ id, number }: Planted): Promise<string> {
  const { orm } = api.db;
  const where = { workspaceId: id };
  const tables = await Promise.all([
    orm.workspace.findMany({ where: { id }, include: { settings: true } }),
    orm.apiKey.findMany({ where, omit: { lastUsedAt: true } }),
    orm.contact.findMany({ where, include: { aliases: true } }),
    orm.conversation.findMany({ where, include: { merged: true } }),
    orm.message.findMany({ where }),
    orm.vapiCallResult.findMany({ where }),
    orm.deadLetter.findMany({ where: { phoneNumberId: number } }),
    orm.parkedMessage.findMany({ where: { phoneNumberId: number } }),
    orm.historySync.findMany({ where }),
    orm.auditEntry.findMany({ where }),
  ]);
  return JSON.stringify(tables, (_key, value: unknown) => (typeof value === 'bigint' ? String(value) : value), 1);
}

/** What a response shows of a workspace: its marker, or that it has the one message. */
function traceOf({ path }: Operation, { marker }: Planted): RegExp {
  return path.startsWith('/api/v1/metrics/') ? /"(received|accepted)":1\b/ : new RegExp(marker);
}

const readings = operations.filter(({ method }) => method === 'GET');

test.each(readings)(
  'when $name is asked with the right key, then it shows what is planted, so that the walk can find it',
  async (operation) => {
    // Vapi and Kapso are asked for these.
    if (/\/(recording|webhook)$/.test(operation.path)) return;
    const { url } = addressOf(operation, other);
    const { status, text } = await ask(other.keys.admin, operation, url);
    expect([status, text]).toEqual([200, expect.stringMatching(traceOf(operation, other))]);
    expect(text).not.toContain(mine.marker);
  },
);

test.each(operations)(
  "when $name is asked with another workspace's key, then nothing of it is shown, found or changed",
  async (operation) => {
    const before = await rowsOf(other);
    const { url, namesOne } = addressOf(operation, other);
    for (const role of ROLES) {
      const { status, text } = await ask(mine.keys[role], operation, url);
      if (namesOne) expect([403, 404]).toContain(status);
      for (const secret of [other.marker, ...(namesOne ? [] : [other.id, other.number])]) expect(text).not.toContain(secret);
      if (role === 'admin' && namesOne && operation.permission !== 'installation:write') expect(status).toBe(404);
    }
    expect(await rowsOf(other)).toBe(before);
  },
);

test.each(readings.filter(({ parameters }) => parameters.some(({ name }) => name === 'workspaceId')))(
  'when $name is asked for another workspace by name, then it is a 404',
  async (operation) => {
    const { url } = addressOf(operation, other);
    expect((await ask(mine.keys.admin, operation, `${url}?workspaceId=${other.id}`)).status).toBe(404);
    expect((await ask(API_KEY, operation, `${url}?workspaceId=${other.id}`)).text).toMatch(traceOf(operation, other));
  },
);
