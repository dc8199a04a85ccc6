import { Webhook } from 'standardwebhooks';
import { type Receiver, startReceiver } from '../../sandbox/receiver';
import { postAlert } from './client';

const SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
let receiver: Receiver;

beforeEach(async () => {
  receiver = await startReceiver();
});
afterEach(() => receiver.close());

const internal = { mayBeInternal: true, timeoutMs: 2_000 };
const message = { id: '5f0c3b8e-1d2a-8c4b-a6f7-0123456789ab', text: 'a <b> & c' };

test('when an alert is posted, then it is Slack’s JSON, signed under the id of the message', async () => {
  expect(await postAlert({ ...internal, url: receiver.url, signingSecret: SECRET }, message)).toEqual({
    kind: 'answered',
    httpStatus: 200,
  });
  const { headers, raw } = receiver.webhooks[0] ?? { headers: {}, raw: '' };
  expect(new Webhook(SECRET).verify(raw, headers as Record<string, string>)).toEqual({ text: 'a &lt;b&gt; &amp; c' });
  expect(headers).toMatchObject({ 'content-type': 'application/json', 'webhook-id': `alert-${message.id}` });
});

test('when there is no signing key, then it is posted without a signature', async () => {
  await postAlert({ ...internal, url: receiver.url }, message);
  expect(Object.keys(receiver.webhooks[0]?.headers ?? {}).filter((name) => name.startsWith('webhook-'))).toEqual([]);
});

const guarded = { mayBeInternal: false, timeoutMs: 2_000 };

test.each([
  ['is internal', 'https://127.0.0.1/hook', '127.0.0.1', /internal address/],
  ['has a name that leads to an internal address', 'https://hooks.example.com/hook', '10.0.0.5', /internal address/],
  ['is not https', 'http://hooks.example.com/hook', '127.0.0.1', /https/],
  ['has another port', 'https://hooks.example.com:8443/hook', '127.0.0.1', /port/],
])('when the URL %s, then nothing is sent', async (_when, url, address, problem) => {
  const resolve = async () => [{ address, family: 4 }];
  expect(await postAlert({ ...guarded, url, resolve }, message)).toEqual({ kind: 'forbidden', problem: expect.stringMatching(problem) });
});
