/**
 * A call as callers read it: from the API, and in a callback. Flat, and every field is always there (null when unknown),
 * because a flow of Kestra fails on a missing field and not on null (measured with Kestra 1.3 and 2.0).
 */
import { z } from 'zod';
import type { VapiCallResult } from '../prisma/generated/client';

/** Parts that are long, and only shown when asked for. */
export const CALL_PARTS = ['transcript', 'messages', 'raw'] as const;
export type CallPart = (typeof CALL_PARTS)[number];

const time = (description: string) => z.iso.datetime().nullable().meta({ description, example: '2026-11-20T15:01:11.500Z' });

export const callBodySchema = z
  .object({
    callId: z.uuid().meta({ description: 'Our id of the call.', example: '5f0c2b1e-2a51-8c11-a0d4-6c8b0a6f9b3e' }),
    providerCallId: z.string().nullable().meta({ description: "Vapi's id, once it is known." }),
    status: z
      .string()
      .meta({ description: 'scheduled, queued, ringing, in-progress, forwarding or ended; open to new ones.', example: 'ended' }),
    done: z.boolean().meta({ description: 'True when the result stands. Nothing changes afterwards but late details.' }),
    outcome: z.string().nullable().meta({
      description:
        'no_answer, busy, voicemail, invalid_number, canceled, transfer_failed, completed, failed or unknown; null until done. Unknown: it is not clear whether anybody was called.',
      example: 'completed',
    }),
    endedReason: z.string().nullable().meta({ description: "Vapi's own reason.", example: 'customer-ended-call' }),
    error: z.string().nullable().meta({ description: 'What went wrong, in words, for a failed call.' }),
    needsAttention: z.boolean().meta({ description: 'A person should look at this call.' }),
    direction: z.enum(['outbound', 'inbound', 'web']),
    from: z.string().nullable().meta({ description: 'Number of the caller, in E.164.' }),
    to: z.string().nullable().meta({ description: 'Number that was called, in E.164.', example: '+15550100' }),
    assistantId: z.string().nullable(),
    phoneNumberId: z.string().nullable().meta({ description: "Vapi's id of our number." }),
    serviceRequestId: z.string().nullable().meta({ description: 'As given at the start.' }),
    conversationId: z.uuid().nullable().meta({ description: 'WhatsApp conversation of the same person.' }),
    metadata: z.record(z.string(), z.unknown()).nullable().meta({ description: 'As given at the start.' }),
    createdAt: z.iso.datetime(),
    startedAt: time('When the call began, by Vapi.'),
    answeredAt: time('When somebody, or something, answered.'),
    endedAt: time('When the call ended.'),
    doneAt: time('When the result stood.'),
    durationSeconds: z.number().nullable().meta({ example: 61.7 }),
    cost: z.number().nullable().meta({ description: 'US dollars.', example: 0.0932 }),
    summary: z.string().nullable(),
    structuredData: z.unknown().meta({ description: "What the assistant's analysis found; null without one." }),
    successEvaluation: z
      .string()
      .nullable()
      .meta({ description: "The analysis's verdict; its words depend on its rubric.", example: 'true' }),
    hasRecording: z.boolean(),
    transcript: z.string().nullable().meta({ description: 'Only with include=transcript.' }),
    messages: z.unknown().meta({ description: 'A list, only with include=messages; else null.' }),
    raw: z.unknown().meta({ description: 'What Vapi sent, without secrets, only with include=raw; else null.' }),
    links: z.object({ self: z.string(), recording: z.string().nullable() }),
  })
  .meta({ id: 'Call', description: 'A voice call.' });

export type CallBody = z.output<typeof callBodySchema>;

/** The row as callers read it. */
export function callBody(row: VapiCallResult, include: readonly CallPart[] = []): CallBody {
  const self = `/api/v1/vapi/calls/${row.id}`;
  const hasRecording = row.recordingUrl !== null;
  return {
    callId: row.id,
    providerCallId: row.providerCallId,
    status: row.status,
    done: row.doneAt !== null,
    outcome: row.outcome,
    endedReason: row.endedReason,
    error: row.error,
    needsAttention: row.needsAttention,
    direction: row.direction,
    from: row.fromNumber,
    to: row.toNumber,
    assistantId: row.assistantId,
    phoneNumberId: row.phoneNumberId,
    serviceRequestId: row.serviceRequestId,
    conversationId: row.conversationId,
    metadata: row.metadata as CallBody['metadata'],
    createdAt: row.createdAt.toISOString(),
    startedAt: row.startedAt?.toISOString() ?? null,
    answeredAt: row.answeredAt?.toISOString() ?? null,
    endedAt: row.endedAt?.toISOString() ?? null,
    doneAt: row.doneAt?.toISOString() ?? null,
    durationSeconds: row.durationSeconds,
    cost: row.cost,
    summary: row.summary,
    structuredData: row.structuredData,
    successEvaluation: row.successEvaluation,
    hasRecording,
    transcript: include.includes('transcript') ? row.transcript : null,
    messages: include.includes('messages') ? row.messages : null,
    raw: include.includes('raw') ? row.rawPayload : null,
    links: { self, recording: hasRecording ? `${self}/recording` : null },
  };
}
