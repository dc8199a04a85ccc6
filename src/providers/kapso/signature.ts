/** Webhook signatures: HMAC-SHA256 over the raw bytes, as hex. Facts: Kapso's webhook security page, Meta's webhook reference. */
import { createHmac, timingSafeEqual } from 'node:crypto';

const HEX_DIGEST = /^(?:sha256=)?([0-9a-f]{64})$/i;

/** Whether `signature` (bare hex or `sha256=` and hex) was made with one of the secrets. Takes the same time for each. */
export function isSigned(rawBody: Buffer, signature: string | undefined, secrets: readonly string[]): boolean {
  const hex = HEX_DIGEST.exec(signature?.trim() ?? '')?.[1];
  if (!hex) return false;
  const given = Buffer.from(hex, 'hex');
  return secrets.filter((secret) => timingSafeEqual(createHmac('sha256', secret).update(rawBody).digest(), given)).length > 0;
}
