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

/** Something that is understood and not used. `shape` has field names and types, never values. */
export interface SkippedMessage {
  kind: 'skipped';
  type: string;
  reason: 'not_used' | 'no_call';
  providerCallId?: string;
  shape: string;
}

/** Something that cannot be read. `shape` as above. */
export interface UnreadableMessage {
  kind: 'unreadable';
  type: string;
  reason: 'not_json' | 'too_deep' | 'unreadable';
  /** The reason in words; nothing personal. */
  detail: string;
  providerCallId?: string;
  shape: string;
}

export type VapiMessage = FactMessage | QuestionMessage | SkippedMessage | UnreadableMessage;

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

/** Parses the body of one webhook; never throws. */
export function readVapiBody(rawBody: Buffer): VapiMessage {
  try {
    return readVapiJson(JSON.parse(rawBody.toString('utf8')));
  } catch (error) {
    const unread = { kind: 'unreadable', type: 'unknown', shape: 'unknown' } as const;
    if (error instanceof SyntaxError) return { ...unread, reason: 'not_json', detail: 'The body is not JSON.' };
    if (error instanceof RangeError) return { ...unread, reason: 'too_deep', detail: 'The body is nested too deeply.' };
    throw error;
  }
}

/** Reads a body that was parsed already. @throws RangeError when it is nested too deep */
export function readVapiJson(body: unknown): VapiMessage {
  const parsed = envelopeSchema.safeParse(body);
  if (!parsed.success) return unreadable('unknown', body, 'The body has no message with a type.');
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
  if (!event && message.call === undefined) return { kind: 'skipped', type, reason: 'no_call', shape: shapeOf(message) };
  if (!event) return unreadable(type, message, 'The call has no id that can be read.');
  if (type === 'status-update') {
    const { status, providerCallId } = event;
    return status === undefined
      ? { ...unreadable(type, message, 'The status of the call cannot be read.'), providerCallId }
      : { kind: 'fact', event };
  }
  const report = readReport(message);
  return { kind: 'fact', event, ...(report ? { report } : {}) };
}

function unreadable(type: string, value: unknown, detail: string): UnreadableMessage {
  return { kind: 'unreadable', type, reason: 'unreadable', detail, shape: shapeOf(value) };
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
