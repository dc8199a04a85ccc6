import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { IncomingHttpHeaders } from 'node:http';
import { join } from 'node:path';
import { readSettings } from '../../platform/config';
import { type VapiAuthSettings, vapiProof } from './signature';

interface Vector {
  name: string;
  algorithm: string;
  encoding: string;
  secret: string;
  signature: string;
  timestamp?: string;
  secretIsBase64?: boolean;
}

const { body, vectors } = JSON.parse(readFileSync(join(__dirname, '../../../test/fixtures/vapi/hmac-vectors.json'), 'utf8')) as {
  body: string;
  vectors: Vector[];
};
const SIGNED_AT_MS = 1_795_186_800_000;
const rawBody = Buffer.from(body);

/** Whether headers and body together are proof. */
function isFromVapi(headers: IncomingHttpHeaders, body: Buffer, settings: VapiAuthSettings, nowMs?: number): boolean {
  const proof = vapiProof(headers, settings, nowMs);
  return typeof proof === 'boolean' ? proof : proof(body);
}

const settingsOf = (values: Record<string, string>) => readSettings(values);
const settingsFor = (vector: Vector) =>
  settingsOf({
    VAPI_WEBHOOK_AUTH: 'hmac',
    VAPI_WEBHOOK_SECRET: vector.secret,
    VAPI_HMAC_ALGORITHM: vector.algorithm,
    VAPI_HMAC_ENCODING: vector.encoding,
    VAPI_HMAC_SECRET_ENCODING: vector.secretIsBase64 ? 'base64' : 'text',
    ...(vector.timestamp ? {} : { VAPI_HMAC_TIMESTAMP_HEADER: 'none' }),
  });
const headersOf = ({ signature, timestamp }: Vector) => ({ 'x-signature': signature, ...(timestamp ? { 'x-timestamp': timestamp } : {}) });
const defaultVector = vectors[0] as Vector;

describe('HMAC', () => {
  test.each(vectors)('when the signature is the vector "$name", then it is accepted; with any byte changed, it is rejected', (vector) => {
    const settings = settingsFor(vector);
    expect(isFromVapi(headersOf(vector), rawBody, settings, SIGNED_AT_MS)).toBe(true);
    for (const at of [0, 40, rawBody.length - 1]) {
      const changed = Buffer.from(rawBody);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(isFromVapi(headersOf(vector), changed, settings, SIGNED_AT_MS)).toBe(false);
    }
    const last = vector.signature.endsWith('0') ? '1' : '0';
    const signature = vector.encoding === 'hex' ? `${vector.signature.slice(0, -1)}${last}` : `A${vector.signature.slice(1)}`;
    expect(isFromVapi(headersOf({ ...vector, signature }), rawBody, settings, SIGNED_AT_MS)).toBe(false);
    expect(isFromVapi(headersOf(vector), rawBody, { ...settings, VAPI_WEBHOOK_SECRET: ['other'] }, SIGNED_AT_MS)).toBe(false);
    expect(isFromVapi({}, rawBody, settings, SIGNED_AT_MS)).toBe(false);
  });

  test.each([
    ['as old as allowed', 300_000, true],
    ['too old', 301_000, false],
    ['as far in the future as allowed', -300_000, true],
    ['too far in the future', -301_000, false],
  ])('when the signature is %s, then its age decides whether it is accepted', (_what, ageMs, accepted) => {
    for (const vector of vectors.slice(0, 2)) {
      expect(isFromVapi(headersOf(vector), rawBody, settingsFor(vector), SIGNED_AT_MS + ageMs)).toBe(accepted);
    }
  });

  test('when the timestamp is missing, not a number, or not the signed one, then it is rejected', () => {
    for (const timestamp of [undefined, '', 'now', '-1', '1795186801', '1795186800.0']) {
      const headers = { 'x-signature': defaultVector.signature, ...(timestamp === undefined ? {} : { 'x-timestamp': timestamp }) };
      expect(isFromVapi(headers, rawBody, settingsFor(defaultVector), SIGNED_AT_MS)).toBe(false);
    }
  });

  test('when only the body is signed, but a timestamp is required, then it is rejected', () => {
    const bodyOnly = vectors.find(({ timestamp }) => timestamp === undefined) as Vector;
    const headers = { ...headersOf(bodyOnly), 'x-timestamp': '1795186800' };
    expect(isFromVapi(headers, rawBody, settingsFor(defaultVector), SIGNED_AT_MS)).toBe(false);
  });

  test('when the older X-Vapi-Signature over the body is configured, with a prefix, then it is accepted', () => {
    const settings = settingsOf({
      VAPI_WEBHOOK_AUTH: 'hmac',
      VAPI_WEBHOOK_SECRET: 'new-secret,old-secret',
      VAPI_HMAC_HEADER: 'X-Vapi-Signature',
      VAPI_HMAC_TIMESTAMP_HEADER: 'none',
      VAPI_HMAC_PREFIX: 'sha256=',
    });
    for (const secret of ['new-secret', 'old-secret']) {
      const signature = createHmac('sha256', secret).update(rawBody).digest('hex');
      expect(isFromVapi({ 'x-vapi-signature': `sha256=${signature}` }, rawBody, settings)).toBe(true);
      expect(isFromVapi({ 'x-vapi-signature': signature }, rawBody, settings)).toBe(false);
      expect(isFromVapi({ 'x-signature': `sha256=${signature}` }, rawBody, settings)).toBe(false);
      expect(isFromVapi({ 'x-vapi-signature': `sha256=${signature}zz` }, rawBody, settings)).toBe(false);
    }
  });

  test('when the secret is empty, or decodes to nothing, then nothing is accepted', () => {
    for (const secret of [undefined, '', ' ', '===']) {
      for (const encoding of ['text', 'base64'] as const) {
        const key = encoding === 'base64' ? Buffer.alloc(0) : (secret ?? '');
        const signature = createHmac('sha256', key).update(`1795186800.${body}`).digest('hex');
        const settings = { ...settingsFor(defaultVector), VAPI_WEBHOOK_SECRET: secret === undefined ? [] : [secret] };
        const isAccepted = isFromVapi(
          { 'x-signature': signature, 'x-timestamp': '1795186800' },
          rawBody,
          { ...settings, VAPI_HMAC_SECRET_ENCODING: encoding },
          SIGNED_AT_MS,
        );
        // As text, "===" is a secret like any other.
        expect(isAccepted).toBe(secret === '===' && encoding === 'text');
      }
    }
  });
});

describe.each([
  ['secret', (secret: string) => ({ 'x-vapi-secret': secret })],
  ['bearer', (secret: string) => ({ authorization: `Bearer ${secret}` })],
])('%s', (scheme, headersWith) => {
  const settings = settingsOf({ VAPI_WEBHOOK_AUTH: scheme, VAPI_WEBHOOK_SECRET: 'first-secret, second-secret' });

  test('when any of the secrets is sent, then it is accepted', () => {
    expect(isFromVapi(headersWith('first-secret'), rawBody, settings)).toBe(true);
    expect(isFromVapi(headersWith('second-secret'), rawBody, settings)).toBe(true);
  });

  test.each(['', ' ', 'first-secre', 'first-secret2', 'first-secret, second-secret', 'FIRST-SECRET'])(
    'when "%s" is sent, then it is rejected',
    (secret) => {
      expect(isFromVapi(headersWith(secret), rawBody, settings)).toBe(false);
    },
  );

  test('when no secret, or an empty one, is configured, then not even an empty one is accepted', () => {
    for (const VAPI_WEBHOOK_SECRET of [[], [''], [' ']]) {
      for (const secret of ['', ' ', 'undefined', 'first-secret']) {
        expect(isFromVapi(headersWith(secret), rawBody, { ...settings, VAPI_WEBHOOK_SECRET })).toBe(false);
      }
      expect(isFromVapi({}, rawBody, { ...settings, VAPI_WEBHOOK_SECRET })).toBe(false);
    }
  });

  test('when the secret is sent in the other scheme’s header, then it is rejected', () => {
    const headers = { 'x-vapi-secret': 'first-secret', authorization: 'Bearer first-secret', 'x-signature': 'first-secret' };
    const { [scheme === 'secret' ? 'x-vapi-secret' : 'authorization']: _own, ...others } = headers;
    expect(isFromVapi(others, rawBody, settings)).toBe(false);
  });
});

test('when the headers alone decide, then no body is asked for; with HMAC, only one that could be signed', () => {
  const proof = (headers: IncomingHttpHeaders, auth: Record<string, string>) => {
    const decided = vapiProof(headers, settingsOf({ VAPI_WEBHOOK_SECRET: 'first-secret', ...auth }), SIGNED_AT_MS);
    return typeof decided === 'function' ? 'the body' : decided;
  };
  const hmac = { VAPI_WEBHOOK_AUTH: 'hmac' };
  const signed = { 'x-signature': 'ab'.repeat(32), 'x-timestamp': String(SIGNED_AT_MS / 1_000) };
  expect(proof({ 'x-vapi-secret': 'first-secret' }, {})).toBe(true);
  expect(proof({ 'x-vapi-secret': 'other' }, {})).toBe(false);
  expect(proof({ authorization: 'Bearer first-secret' }, { VAPI_WEBHOOK_AUTH: 'bearer' })).toBe(true);
  expect(proof({}, { VAPI_WEBHOOK_AUTH: 'bearer' })).toBe(false);
  expect(proof(signed, hmac)).toBe('the body');
  expect(proof({ ...signed, 'x-signature': 'no hex' }, hmac)).toBe(false);
  expect(proof({ ...signed, 'x-timestamp': '1' }, hmac)).toBe(false);
  expect(proof(signed, { ...hmac, VAPI_WEBHOOK_SECRET: '' })).toBe(false);
});
