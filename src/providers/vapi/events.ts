/**
 * Parses Vapi's webhooks into facts about a call, questions that Vapi blocks on, and messages that are not used here.
 * src/providers/vapi/report.ts reads the fields of a call. Sources: Vapi's server events page and the ServerMessage schemas
 * of its OpenAPI document, as of November 2026; examples in test/fixtures/vapi.
 */

import { z } from 'zod';
import type { CallEvent, CallReport } from '../../../workflows/contract';
import { shapeOf } from '../../platform/shape';
import { cutText } from '../../platform/text';
import { vapiId } from './id';
import { readCallEvent, readReport } from './report';

/** Message types whose response Vapi waits for. */
export const QUESTION_TYPES = [
  'assistant-request',
  'tool-calls',
  'function-call',
  'transfer-destination-request',
  'handoff-destination-request',
  'knowledge-base-request',
  'phone-call-control',
  'voice-request',
  'call.endpointing.request',
  'campaign.predial',
] as const;
export type QuestionType = (typeof QUESTION_TYPES)[number];

/** All known types (Vapi's server messages, as of November 2026). */
export const KNOWN_TYPES: ReadonlySet<string> = new Set([
  ...QUESTION_TYPES,
  'status-update',
  'end-of-call-report',
  'hang',
  'speech-update',
  'transcript',
  'conversation-update',
  'model-output',
  'user-interrupted',
  'transfer-update',
  'call.artifact.upload',
]);

/** A tool call that the model requests; the arguments are not read. */
export interface ToolCall {
  id?: string;
  name?: string;
}

export interface FactMessage {
  kind: 'fact';
  event: CallEvent;
  /** Set for an end-of-call-report. */
  report?: CallReport;
}

export interface QuestionMessage {
  kind: 'question';
  type: QuestionType;
  providerCallId?: string;
  toolCalls: ToolCall[];
}

/** `shape` has field names and types, never values. */
export interface SkippedMessage {
  kind: 'skipped';
  type: string;
  reason: 'not_used' | 'no_call' | 'unreadable';
  providerCallId?: string;
  shape: string;
}

export type VapiMessage = FactMessage | QuestionMessage | SkippedMessage;

/** A type is a name, in one case with a condition: `transcript[transcriptType="final"]`. */
const TYPE = /^[\w.[\]="-]{1,100}$/;

const envelopeSchema = z.object({ message: z.looseObject({ type: z.string().regex(TYPE) }) });
const callIdSchema = z.object({ call: z.object({ id: vapiId }) });

const toolText = z
  .string()
  .min(1)
  .transform((value) => cutText(value, 256))
  .optional()
  .catch(undefined);
const toolCallSchema = z.object({
  id: toolText,
  name: toolText,
  function: z.object({ name: toolText }).optional().catch(undefined),
});
const items = z.array(z.unknown()).optional().catch(undefined);
const toolCallsSchema = z.object({
  toolCallList: items,
  toolCalls: items,
  toolWithToolCallList: items,
  functionCall: z.unknown().optional(),
});
const wrappedToolCallSchema = z.object({ name: toolText, toolCall: z.looseObject({}) });

/** A model requests a few tools at once; the limit only guards against abuse. */
const MAX_TOOL_CALLS = 50;

/** Parses the body of one webhook. @throws SyntaxError if it is not JSON */
export function readVapiBody(rawBody: Buffer): VapiMessage {
  const body: unknown = JSON.parse(rawBody.toString('utf8'));
  const parsed = envelopeSchema.safeParse(body);
  if (!parsed.success) return { kind: 'skipped', type: 'unknown', reason: 'unreadable', shape: shapeOf(body) };
  const { message } = parsed.data;
  const { type } = message;
  if (type === 'status-update' || type === 'end-of-call-report') return readFact(message, type);
  const callId = callIdSchema.safeParse(message);
  const named = callId.success ? { providerCallId: callId.data.call.id } : {};
  if (isQuestion(type)) return { kind: 'question', type, ...named, toolCalls: readToolCalls(message) };
  return { kind: 'skipped', type, reason: 'not_used', ...named, shape: shapeOf(message) };
}

function isQuestion(type: string): type is QuestionType {
  return (QUESTION_TYPES as readonly string[]).includes(type);
}

function readFact(message: Record<string, unknown>, type: CallEvent['type']): VapiMessage {
  const event = readCallEvent(message, type);
  if (!event) return { kind: 'skipped', type, reason: 'no_call', shape: shapeOf(message) };
  if (type === 'status-update') {
    const { status, providerCallId } = event;
    return status === undefined
      ? { kind: 'skipped', type, reason: 'unreadable', providerCallId, shape: shapeOf(message) }
      : { kind: 'fact', event };
  }
  const report = readReport(message);
  return { kind: 'fact', event, ...(report ? { report } : {}) };
}

/** Accepts every observed format: with `function`, with the name next to the id, wrapped with the tool, and the oldest, without an id. */
function readToolCalls(message: Record<string, unknown>): ToolCall[] {
  const { toolCallList, toolCalls, toolWithToolCallList, functionCall } = toolCallsSchema.parse(message);
  const wrapped = toolWithToolCallList?.flatMap((item) => {
    const parsed = wrappedToolCallSchema.safeParse(item);
    return parsed.success ? [{ name: parsed.data.name, ...parsed.data.toolCall }] : [];
  });
  const named = [toolCallList, toolCalls, wrapped, functionCall === undefined ? undefined : [functionCall]].find((list) => list?.length);
  return (named ?? []).slice(0, MAX_TOOL_CALLS).flatMap((item): ToolCall[] => {
    const parsed = toolCallSchema.safeParse(item);
    if (!parsed.success) return [];
    const { id, name = parsed.data.function?.name } = parsed.data;
    return [{ ...(id === undefined ? {} : { id }), ...(name === undefined ? {} : { name }) }];
  });
}
