/**
 * Authenticates Vapi's webhooks: by shared secret, bearer token, or an HMAC over the raw bytes, depending on the settings.
 * Sources: Vapi's server authentication page and the HMACAuthenticationPlan of its OpenAPI document.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import type { Settings } from '../../platform/config';

export type VapiAuthSettings = Pick<
  Settings,
  | 'VAPI_WEBHOOK_AUTH'
  | 'VAPI_WEBHOOK_SECRET'
  | 'VAPI_HMAC_HEADER'
  | 'VAPI_HMAC_TIMESTAMP_HEADER'
  | 'VAPI_HMAC_PREFIX'
  | 'VAPI_HMAC_ENCODING'
  | 'VAPI_HMAC_ALGORITHM'
  | 'VAPI_HMAC_SECRET_ENCODING'
  | 'VAPI_HMAC_TOLERANCE_SECONDS'
>;

/** The timestamp header's name that means "no timestamp": only the body is signed. */
const NO_TIMESTAMP = 'none';
/** Timestamps above this are in milliseconds. The unit is undocumented; in seconds, this would be the year 33658. */
const MILLISECONDS_FROM = 1e12;

/**
 * What the headers prove: true, that the webhook is Vapi's; false, that it is not; with HMAC, a check of the body decides. Always
 * false if no secret is set: without a credential, Vapi sends an empty `X-Vapi-Secret`.
 */
export function vapiProof(
  headers: IncomingHttpHeaders,
  settings: VapiAuthSettings,
  nowMs = Date.now(),
): boolean | ((rawBody: Buffer) => boolean) {
  const secrets = settings.VAPI_WEBHOOK_SECRET.filter((secret) => secret.trim() !== '');
  if (settings.VAPI_WEBHOOK_AUTH === 'hmac') return hmacProof(headers, secrets, settings, nowMs);
  return isOneOf(secrets, givenSecret(headers, settings));
}

/** The secret in the headers; undefined if there is none, or with HMAC, which sends none. */
export function givenSecret(
  headers: IncomingHttpHeaders,
  { VAPI_WEBHOOK_AUTH }: Pick<VapiAuthSettings, 'VAPI_WEBHOOK_AUTH'>,
): string | undefined {
  switch (VAPI_WEBHOOK_AUTH) {
    case 'secret':
      return header(headers, 'x-vapi-secret') || undefined;
    case 'bearer':
      return /^bearer +(.+)$/i.exec(header(headers, 'authorization') ?? '')?.[1];
    case 'hmac':
      return undefined;
  }
}

function header(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name];
  return typeof value === 'string' ? value.trim() : undefined;
}

/** Compares digests, so that the timing reveals neither the length nor the first wrong byte. */
function isOneOf(secrets: readonly string[], given: string | undefined): boolean {
  if (!given) return false;
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return secrets.filter((secret) => timingSafeEqual(digest(secret), digest(given))).length > 0;
}

/** False when the headers alone show that no body could be signed. */
function hmacProof(
  headers: IncomingHttpHeaders,
  secrets: readonly string[],
  settings: VapiAuthSettings,
  nowMs: number,
): false | ((rawBody: Buffer) => boolean) {
  const given = signatureOf(header(headers, settings.VAPI_HMAC_HEADER), settings);
  if (!given) return false;
  const hasTimestamp = settings.VAPI_HMAC_TIMESTAMP_HEADER !== NO_TIMESTAMP;
  const timestamp = hasTimestamp ? header(headers, settings.VAPI_HMAC_TIMESTAMP_HEADER) : undefined;
  if (hasTimestamp && !isRecent(timestamp, settings.VAPI_HMAC_TOLERANCE_SECONDS, nowMs)) return false;
  const encoding = settings.VAPI_HMAC_SECRET_ENCODING === 'base64' ? 'base64' : 'utf8';
  const keys = secrets.map((secret) => Buffer.from(secret, encoding)).filter((key) => key.length > 0);
  if (keys.length === 0) return false;
  return (rawBody) =>
    keys.filter((key) => {
      const hmac = createHmac(settings.VAPI_HMAC_ALGORITHM, key);
      if (hasTimestamp) hmac.update(`${timestamp}.`);
      const wanted = hmac.update(rawBody).digest();
      return wanted.length === given.length && timingSafeEqual(wanted, given);
    }).length > 0;
}

function signatureOf(value: string | undefined, settings: VapiAuthSettings): Buffer | undefined {
  const { VAPI_HMAC_PREFIX: prefix, VAPI_HMAC_ENCODING: encoding } = settings;
  if (!value?.startsWith(prefix)) return undefined;
  const encoded = value.slice(prefix.length);
  // Buffer.from ignores everything after the first invalid character, so check the whole value.
  const pattern = encoding === 'hex' ? /^(?:[0-9a-f]{2})+$/i : /^[A-Za-z0-9+/]+={0,2}$/;
  return pattern.test(encoded) ? Buffer.from(encoded, encoding) : undefined;
}

function isRecent(timestamp: string | undefined, toleranceSeconds: number, nowMs: number): boolean {
  if (!timestamp || !/^\d{1,16}$/.test(timestamp)) return false;
  const count = Number(timestamp);
  const atMs = count > MILLISECONDS_FROM ? count : count * 1_000;
  return Math.abs(nowMs - atMs) <= toleranceSeconds * 1_000;
}
