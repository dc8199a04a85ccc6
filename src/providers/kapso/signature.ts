/** Webhook signatures: HMAC-SHA256 of the raw bytes, in hex (Kapso's webhook security page, Meta's webhook reference). */
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';

/** Kapso's header, and Meta's, which Kapso may forward. */
const SIGNATURE_HEADERS = ['x-webhook-signature', 'x-hub-signature-256'];
const HEX_DIGEST = /^(?:sha256=)?([0-9a-f]{64})$/i;

/** The signatures in the headers; empty if no header has one in a valid format. */
export function signaturesIn(headers: IncomingHttpHeaders): Buffer[] {
  return SIGNATURE_HEADERS.flatMap((name) => signatureOf(headers[name]) ?? []);
}

/** Parses hex, with or without the prefix `sha256=`; undefined for anything else. */
export function signatureOf(header: string | string[] | undefined): Buffer | undefined {
  const hex = HEX_DIGEST.exec(typeof header === 'string' ? header.trim() : '')?.[1];
  return hex === undefined ? undefined : Buffer.from(hex, 'hex');
}

/** The signature of a body, in hex, as Kapso makes it. */
export function signatureFor(rawBody: Buffer, secret: string): string {
  return createHmac('sha256', secret).update(rawBody).digest('hex');
}

/** Whether `signature` was made with one of the secrets, in constant time. */
export function isSigned(rawBody: Buffer, signature: Buffer, secrets: readonly string[]): boolean {
  return secrets.filter((secret) => timingSafeEqual(createHmac('sha256', secret).update(rawBody).digest(), signature)).length > 0;
}
