/** The checks of WhatsApp against the double of Kapso, and a receiver that verifies signatures as the API does. */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { startTestSandbox } from '../../../test/support/sandbox';
import { readSettings } from '../../platform/config';
import { isSigned, signaturesIn } from '../../providers/kapso/signature';
import type { WebhookRow } from '../../sandbox/kapso/platform';
import type { Sandbox } from '../../sandbox/sandbox';
import { problemsIn } from './finding';
import { checkWhatsApp } from './whatsapp';

const NUMBER = '200000000000002';
const SECRET = 'a-secret-0123456789';
const KEY = 'a-key-0123456789';

let api: Server;
let apiUrl: string;
let sandbox: Sandbox;
/** What the receiver at the webhook's address responds with to a signed request; by default as Parley does. */
let respond: { status: number; body: string };

beforeAll(async () => {
  api = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const isAuthentic = signaturesIn(request.headers).some((signature) => isSigned(Buffer.concat(chunks), signature, [SECRET]));
    response.writeHead(isAuthentic ? respond.status : 401).end(respond.body);
  }).listen(0, '127.0.0.1');
  await once(api, 'listening');
  apiUrl = `http://127.0.0.1:${(api.address() as AddressInfo).port}`;
});
afterAll(() => void api.close());

beforeEach(async () => {
  respond = { status: 200, body: '{"received":true}' };
  sandbox = await startTestSandbox({ webhookUrls: [`${apiUrl}/webhook/kapso`], webhookSecret: SECRET, phoneNumberId: NUMBER, apiKey: KEY });
});
afterEach(() => sandbox.close());

async function check(environment: Record<string, string> = {}) {
  const simulated = { KAPSO_BASE_URL: sandbox.url, SANDBOX_URL: sandbox.url };
  const settings = { KAPSO_API_KEY: KEY, KAPSO_PHONE_NUMBER_ID: NUMBER, KAPSO_WEBHOOK_SECRET: SECRET };
  const findings = await checkWhatsApp(readSettings({ ...simulated, ...settings, ...environment }), apiUrl);
  const text = JSON.stringify(findings);
  for (const secret of [SECRET, KEY]) expect(text).not.toContain(secret);
  return findings;
}

const webhook = (): WebhookRow => sandbox.kapso.platform.webhooks[0] as WebhookRow;

test('when all is as it should be, then each line says so', async () => {
  expect((await check()).map(({ subject, level }) => [subject, level])).toEqual([
    ['Kapso', 'ok'],
    ['Webhook', 'ok'],
    ['Test webhook', 'ok'],
  ]);
});

test('when Kapso is simulated, then a line says so; a double at another address counts as real', async () => {
  const text = async (environment: Record<string, string> = {}) => (await check(environment))[0]?.text;
  expect(await text()).toContain('simulated: no message reaches a real person');
  expect(await text({ SANDBOX_URL: 'http://127.0.0.1:1' })).toContain(`has the number ${NUMBER}`);
});

test('when WhatsApp is off, then Kapso is not queried, and nothing is wrong', async () => {
  expect(await check({ KAPSO_API_KEY: '' })).toMatchObject([{ level: 'note', text: expect.stringContaining('KAPSO_API_KEY') }]);
});

test.each<[string, RegExp, () => void, Record<string, string>?]>([
  ['the number is not set', /KAPSO_PHONE_NUMBER_ID is not set/, () => undefined, { KAPSO_PHONE_NUMBER_ID: '' }],
  ['the key is wrong', /refuses the key \(401\)/, () => undefined, { KAPSO_API_KEY: 'wrong' }],
  ['Kapso is unreachable', /could not be queried \(ECONNREFUSED\)/, () => undefined, { KAPSO_BASE_URL: 'http://127.0.0.1:1' }],
  ['the number belongs to another project', /has no number 300/, () => undefined, { KAPSO_PHONE_NUMBER_ID: '300' }],
  [
    'the number takes no messages',
    /inbound processing/,
    () => Object.assign(sandbox.kapso.platform.numbers[0] ?? {}, { inbound_processing_enabled: false }),
  ],
  ['there is no webhook', /none of the number's 0 webhooks leads to Parley/, () => sandbox.kapso.platform.webhooks.splice(0)],
  [
    'the webhook leads elsewhere',
    /none of the number's 1 webhooks leads to Parley/,
    () => Object.assign(webhook(), { url: 'https://other.example.com/hook' }),
  ],
  ['the webhook is paused', /is paused/, () => Object.assign(webhook(), { active: false })],
  [
    'the webhook lacks the event received',
    /lacks the event whatsapp.message.received/,
    () => Object.assign(webhook(), { events: ['whatsapp.message.sent'] }),
  ],
  ['the payload version is 1', /payload version is v1/, () => Object.assign(webhook(), { payload_version: 'v1' })],
  ['the secrets differ', /secret is not in KAPSO_WEBHOOK_SECRET/, () => Object.assign(webhook(), { secret_key: 'another' })],
  ['the API has another secret', /refuses our signature/, () => undefined, { KAPSO_WEBHOOK_SECRET: 'another' }],
  ['the address is not https', /not https/, () => undefined, { SANDBOX_URL: '' }],
  ['another program is at the address', /not as Parley does/, () => Object.assign(respond, { body: 'ok' })],
  ['the tunnel is down', /cannot be reached/, () => Object.assign(webhook(), { url: 'http://127.0.0.1:1/webhook/kapso' })],
])('when %s, then a line says what to do', async (_what, expected, disturb, environment = {}) => {
  disturb();
  expect(problemsIn(await check(environment)).join('\n')).toMatch(expected);
});

test.each<[string, RegExp, Partial<WebhookRow>]>([
  ['has no status events', /without whatsapp.message.sent, .*failed/, { events: ['whatsapp.message.received'] }],
  ['is buffered', /buffered/, { buffer_enabled: true }],
  ['is of the kind meta', /kind is meta/, { kind: 'meta', events: [] }],
])('when the webhook %s, then it is a warning', async (_what, expected, change) => {
  Object.assign(webhook(), change);
  const findings = await check();
  expect(problemsIn(findings)).toEqual([]);
  expect(
    findings
      .filter(({ level }) => level === 'warning')
      .map(({ text }) => text)
      .join(),
  ).toMatch(expected);
});

test('when another program has webhooks too, then the one at PUBLIC_URL is checked', async () => {
  sandbox.kapso.platform.webhooks.unshift({ ...webhook(), url: 'https://other.example.com/api/webhook/kapso', active: false });
  expect(problemsIn(await check({ PUBLIC_URL: apiUrl }))).toEqual([]);
});
