/**
 * A call as the API and callbacks return it. Flat, and every field is always present (`null` if unknown): a Kestra flow fails on a
 * missing field, but not on null (measured).
 */
import { z } from 'zod';
import { CALL_STATUSES } from '../../../workflows/contract';
import { CALL_OUTCOMES, type CallOutcome } from '../../record/call-outcome';
import type { CallSummary, LargeCallFields } from '../../record/calls';

/** Large or personal fields: null unless requested. */
export const CALL_INCLUDES = ['transcript', 'messages', 'raw'] as const;
export type CallInclude = (typeof CALL_INCLUDES)[number];

const isoTime = z.iso.datetime();
const EXAMPLE_ID = '5f0c3b8e-1d2a-8c4b-a6f7-0123456789ab';

/** The result of `callView`. Strings from Vapi are open to new values. */
export const callViewSchema = z
  .object({
    callId: z.guid().meta({ description: 'Our id of the call', example: EXAMPLE_ID }),
    providerCallId: z
      .string()
      .nullable()
      .meta({ description: "Vapi's id of the call; null until known", example: '01990000-0000-7000-8000-000000000001' }),
    status: z.string().meta({
      description: `The state of the call: ${CALL_STATUSES.join(', ')}; open to new values`,
      example: 'ended',
    }),
    done: z.boolean().meta({
      description:
        'Whether there is a result. A report that arrives later can still fill missing fields, replace the outcome unknown, or show whether anybody spoke: see improvedAt',
      example: true,
    }),
    outcome: z.enum(CALL_OUTCOMES).nullable().meta({ description: 'How the call ended; null until done', example: 'completed' }),
    endedReason: z.string().nullable().meta({ description: 'The reason, as Vapi names it', example: 'customer-ended-call' }),
    error: z.string().nullable().meta({
      description: 'For a failed call: the category (account, platform, provider, config, telephony, media, unknown) and the reason',
      example: null,
    }),
    needsAttention: z.boolean().meta({ description: 'Whether a person should look at the call', example: false }),
    direction: z.enum(['outbound', 'inbound', 'web']).meta({ description: 'Who called', example: 'outbound' }),
    from: z.string().nullable().meta({ description: 'Number of the caller (E.164)', example: '+15550199' }),
    to: z.string().nullable().meta({ description: 'Number that was called (E.164)', example: '+15550100' }),
    assistantId: z.string().nullable().meta({ description: "Vapi's id of the assistant", example: 'assistant-1' }),
    phoneNumberId: z.string().nullable().meta({ description: "Vapi's id of the number that was used", example: 'number-1' }),
    serviceRequestId: z.string().nullable().meta({ description: 'The reference given in the request', example: 'SR-1001' }),
    workspaceId: z.guid().nullable().meta({ description: 'The workspace that the call belongs to', example: null }),
    conversationId: z.guid().nullable().meta({ description: 'The WhatsApp conversation with the same person', example: null }),
    metadata: z
      .record(z.string(), z.unknown())
      .nullable()
      .meta({ description: 'The metadata given in the request', example: { ticket: 'T-7' } }),
    createdAt: isoTime.meta({ description: 'When the call became known here', example: '2026-11-21T10:00:00.000Z' }),
    startedAt: isoTime.nullable().meta({ description: 'When the call began', example: '2026-11-21T10:00:02.000Z' }),
    answeredAt: isoTime.nullable().meta({ description: 'When somebody answered; null if nobody did', example: '2026-11-21T10:00:09.000Z' }),
    endedAt: isoTime.nullable().meta({ description: 'When the call ended', example: '2026-11-21T10:01:14.000Z' }),
    doneAt: isoTime.nullable().meta({ description: 'When the result was written', example: '2026-11-21T10:01:20.000Z' }),
    improvedAt: isoTime.nullable().meta({ description: 'When a late report last improved the result; null if none did', example: null }),
    durationSeconds: z.int().nullable().meta({ description: 'Length of the call in whole seconds', example: 72 }),
    cost: z.number().nullable().meta({ description: 'Cost of the call in US dollars', example: 0.12 }),
    summary: z.string().nullable().meta({ description: 'Summary of the conversation', example: 'The customer confirmed the appointment.' }),
    structuredData: z.unknown().meta({ description: 'The structured data extracted by the assistant (JSON); null if none', example: null }),
    successEvaluation: z
      .string()
      .nullable()
      .meta({ description: 'Success according to the rubric of the assistant; a string such as true, 7 or Good', example: 'true' }),
    hasRecording: z.boolean().meta({ description: 'Whether there is a recording', example: true }),
    transcript: z.string().nullable().meta({ description: 'Null unless requested (include=transcript)', example: null }),
    messages: z.unknown().meta({ description: 'The conversation, turn by turn; null unless requested (include=messages)', example: null }),
    raw: z.unknown().meta({ description: 'What Vapi reported, without its secrets; null unless requested (include=raw)', example: null }),
    links: z
      .object({
        self: z.string().meta({ description: 'This call', example: `/api/v1/vapi/calls/${EXAMPLE_ID}` }),
        recording: z
          .string()
          .nullable()
          .meta({ description: 'Its recording; null if there is none', example: `/api/v1/vapi/calls/${EXAMPLE_ID}/recording` }),
      })
      .meta({ description: 'Paths, relative to this API' }),
  })
  .meta({ id: 'Call', description: 'A voice call. Every field is always present; null if unknown.' });

export type CallView = z.output<typeof callViewSchema>;

/** The view of a row; `include`: the large fields to include, which must have been read. */
export function callView(row: CallSummary & Partial<LargeCallFields>, include: readonly CallInclude[] = []): CallView {
  const self = `/api/v1/vapi/calls/${row.id}`;
  const hasRecording = row.recordingUrl !== null;
  return {
    callId: row.id,
    providerCallId: row.providerCallId,
    status: row.status,
    done: row.doneAt !== null,
    outcome: row.outcome as CallOutcome | null,
    endedReason: row.endedReason,
    error: row.error,
    needsAttention: row.needsAttention,
    direction: row.direction,
    from: row.fromNumber,
    to: row.toNumber,
    assistantId: row.assistantId,
    phoneNumberId: row.phoneNumberId,
    serviceRequestId: row.serviceRequestId,
    workspaceId: row.workspaceId,
    conversationId: row.conversationId,
    metadata: objectOrNull(row.metadata),
    createdAt: row.createdAt.toISOString(),
    startedAt: iso(row.startedAt),
    answeredAt: iso(row.answeredAt),
    endedAt: iso(row.endedAt),
    doneAt: iso(row.doneAt),
    improvedAt: iso(row.improvedAt),
    // Versions before 0.3 stored fractions.
    durationSeconds: row.durationSeconds === null ? null : Math.round(row.durationSeconds),
    cost: row.cost,
    summary: row.summary,
    structuredData: row.structuredData,
    successEvaluation: row.successEvaluation,
    hasRecording,
    transcript: include.includes('transcript') ? (row.transcript ?? null) : null,
    messages: include.includes('messages') ? (row.messages ?? null) : null,
    raw: include.includes('raw') ? (row.rawPayload ?? null) : null,
    links: { self, recording: hasRecording ? `${self}/recording` : null },
  };
}

function iso(time: Date | null): string | null {
  return time === null ? null : time.toISOString();
}

function objectOrNull(value: unknown): Record<string, unknown> | null {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : null;
}
