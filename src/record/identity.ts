/**
 * Ids derived from what must not be exposed: phone numbers, and WhatsApp's message ids, which contain the number in base64.
 * HMAC-SHA256 with the installation's key, so that nobody can recover a number by trying all of them.
 */
import { createHmac } from 'node:crypto';
import type { PrismaClient } from '../../prisma/generated/client';
import type { ContactIdentity } from '../../workflows/contract';

export interface Identity {
  /** 24 hex digits; the phone number decides, and the business-scoped id where there is none. */
  contactKey(phoneNumberId: string, contact: ContactIdentity): string;
  /** A UUID; the same message has the same id however often it comes. */
  messageId(phoneNumberId: string, providerMessageId: string): string;
  /**
   * A UUID for a call of ours, from the caller (a hash of the API key) and their idempotency key, so that no caller gets the call of
   * another; or for a call that others started, from the provider's id.
   */
  callId(source: { caller: string; idempotencyKey: string } | { providerCallId: string }): string;
  /** A UUID for an internal note, from the caller, the conversation that they named, and their idempotency key. */
  noteId(source: { caller: string; conversationId: string; idempotencyKey: string }): string;
}

/** Ids under one key. */
export function createIdentity(key: string): Identity {
  const digest = (...parts: string[]) => createHmac('sha256', key).update(JSON.stringify(parts)).digest('hex');
  return {
    contactKey: (phoneNumberId, { phone, businessScopedUserId }) =>
      digest('contact', phoneNumberId, phone ? `phone:${phone}` : `id:${businessScopedUserId}`).slice(0, 24),
    messageId: (phoneNumberId, providerMessageId) => uuidOf(digest('message', phoneNumberId, providerMessageId)),
    callId: (source) =>
      uuidOf(
        'idempotencyKey' in source ? digest('call', source.caller, source.idempotencyKey) : digest('foreign call', source.providerCallId),
      ),
    noteId: ({ caller, conversationId, idempotencyKey }) => uuidOf(digest('note', caller, conversationId, idempotencyKey)),
  };
}

/** Version 8 (custom) and the variant bits of RFC 9562. */
function uuidOf(hex: string): string {
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

/** Reads the installation's key, which the first migration generated. @throws if the database is unreachable or not migrated */
export async function loadIdentity(db: PrismaClient): Promise<Identity> {
  const { identityKey } = await db.installation.findUniqueOrThrow({ where: { id: 1 } });
  return createIdentity(identityKey);
}
