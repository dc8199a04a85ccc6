/** Webhook signatures: HMAC-SHA256 over the raw bytes, as hex. Facts: Kapso's webhook security page, Meta's webhook reference. */
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';

/** Kapso's header, and the one of Meta, which Kapso may pass on. */
const SIGNATURE_HEADERS = ['x-webhook-signature', 'x-hub-signature-256'];
const HEX_DIGEST = /^(?:sha256=)?([0-9a-f]{64})$/i;

/** The signatures that a webhook brings; none when no header has one in the right form. */
export function signaturesIn(headers: IncomingHttpHeaders): Buffer[] {
  return SIGNATURE_HEADERS.flatMap((name) => signatureOf(headers[name]) ?? []);
}

/** Bare hex, or `sha256=` and hex; undefined for anything else. */
export function signatureOf(header: string | string[] | undefined): Buffer | undefined {
  const hex = HEX_DIGEST.exec(typeof header === 'string' ? header.trim() : '')?.[1];
  return hex === undefined ? undefined : Buffer.from(hex, 'hex');
}

/** Whether `signature` was made with one of the secrets. Takes the same time whichever it was. */
export function isSigned(rawBody: Buffer, signature: Buffer, secrets: readonly string[]): boolean {
  return secrets.filter((secret) => timingSafeEqual(createHmac('sha256', secret).update(rawBody).digest(), signature)).length > 0;
}
