/** A dead letter as the API returns it. */
import { z } from 'zod';
import type { DeadLetter } from '../../../prisma/generated/client';
import { DEAD_LETTER_SOURCES, type DeadLetterHead } from '../../record/dead-letters';

const isoTime = z.iso.datetime();
const TIME = '2026-11-21T10:00:00.000Z';

export const deadLetterHeadSchema = z
  .object({
    id: z.guid().meta({ example: '5f0c3b8e-1d2a-4c4b-a6f7-0123456789ab' }),
    source: z.enum(DEAD_LETTER_SOURCES).meta({ description: 'Where it arrived', example: 'kapso' }),
    reason: z.string().meta({ description: 'A short code; open to new values', example: 'no_sender' }),
    detail: z.string().meta({ description: 'The reason, in words', example: 'A message without a sender.' }),
    event: z.string().nullable().meta({ description: "The sender's name for the event", example: 'whatsapp.message.received' }),
    phoneNumberId: z.string().nullable().meta({ description: "Kapso's id of the business number", example: '100000000000001' }),
    providerMessageId: z.string().nullable().meta({ description: "WhatsApp's id of the message", example: null }),
    workflowId: z.string().nullable().meta({ description: 'The workflow whose message the database rejected', example: null }),
    conversationId: z.guid().nullable().meta({ description: 'The conversation that the message belongs to', example: null }),
    isTruncated: z.boolean().meta({ description: 'Whether the body was too long to store; it then cannot be replayed', example: false }),
    occurrences: z.int().meta({ description: 'How often the same item arrived', example: 1 }),
    createdAt: isoTime.meta({ description: 'When it first arrived', example: TIME }),
    lastSeenAt: isoTime.meta({ description: 'When it last arrived', example: TIME }),
    replayedAt: isoTime.nullable().meta({ description: 'When it was replayed; null while it is open', example: null }),
  })
  .meta({ id: 'DeadLetterHead' });

export const deadLetterSchema = deadLetterHeadSchema
  .extend({
    body: z.unknown().meta({ description: 'The item, or the whole body; null if it is not JSON', example: { message: { type: 'text' } } }),
    rawBody: z.string().nullable().meta({ description: 'The body in base64, if it is not JSON', example: null }),
  })
  .meta({ id: 'DeadLetter' });

export function deadLetterHeadView(row: DeadLetterHead): z.input<typeof deadLetterHeadSchema> {
  const { id, source, reason, detail, event, phoneNumberId, providerMessageId, workflowId, conversationId, isTruncated, occurrences } = row;
  return {
    ...{ id, source: source as z.input<typeof deadLetterHeadSchema>['source'], reason, detail, event, phoneNumberId, providerMessageId },
    ...{ workflowId, conversationId, isTruncated, occurrences },
    createdAt: row.createdAt.toISOString(),
    lastSeenAt: row.lastSeenAt.toISOString(),
    replayedAt: row.replayedAt?.toISOString() ?? null,
  };
}

export function deadLetterView(row: DeadLetter): z.input<typeof deadLetterSchema> {
  const rawBody = row.rawBody ? Buffer.from(row.rawBody).toString('base64') : null;
  return { ...deadLetterHeadView(row), body: row.body, rawBody };
}
