/**
 * Reads the body of a chat completion, whatever its content type: servers that call themselves compatible differ in almost every field.
 * Also converts the bodies of errors to OpenAI's form. Pure.
 */
import { isBlank } from '../../platform/text';
import { withoutThoughts } from './thoughts';

/** A model's answer. */
export interface ChatAnswer {
  /** Trimmed, without the model's thoughts; empty if nothing is left for the customer. */
  text: string;
  /** The answer ended at a token limit, so its text is not whole. */
  isCutOff: boolean;
  /** `model`: it declined in words of its own; `filter`: a content filter withheld the answer. */
  refusedBy: 'model' | 'filter' | undefined;
  /** What the model returned instead of a text. */
  instead: 'thoughts' | 'tool calls' | undefined;
  /** Null if the server does not report it. */
  promptTokens: number | null;
  completionTokens: number | null;
}

/** An error as OpenAI describes it. */
export interface ProviderError {
  message: string;
  code?: string;
  type?: string;
}

export type AnswerReading =
  | { kind: 'answer'; answer: ChatAnswer }
  /** `status`: the one in the body. */
  | { kind: 'error'; error: ProviderError; status: number | undefined }
  | { kind: 'unreadable' };

/** Reads the body of a response with a success status. */
export function readAnswer(body: string): AnswerReading {
  const parsed = parseJson(body);
  const fields = fieldsOf(Array.isArray(parsed) ? parsed[0] : parsed);
  const choices = fields?.choices;
  const choice = Array.isArray(choices) ? fieldsOf(choices[0]) : undefined;
  const error = providerError(fieldsOf(choice?.error) ? choice : fields);
  if (error) return { kind: 'error', error, status: statusIn(choice) ?? statusIn(fields) };
  if (!fields || !Array.isArray(choices) || choice?.finish_reason === 'error') return { kind: 'unreadable' };
  return { kind: 'answer', answer: answerIn(choice ?? {}, fieldsOf(fields.usage)) };
}

/**
 * The body of an error response in OpenAI's form, `{"error": {…}}`, in which the openai package finds message, code and type. Unchanged
 * if it is of no known form.
 */
export function normalizedErrorBody(body: string): string {
  const error = providerError(parseJson(body), true);
  return error ? JSON.stringify({ error }) : body;
}

type Fields = Record<string, unknown>;

function answerIn(choice: Fields, usage: Fields | undefined): ChatAnswer {
  const message = fieldsOf(choice.message) ?? {};
  const said = textOf(message.content ?? choice.text);
  const left = withoutThoughts(said);
  const text = isBlank(left) ? '' : trimmed(left);
  return {
    text,
    isCutOff: CUT_OFF.has(lowerCase(choice.finish_reason)),
    refusedBy: refusedBy(message, choice),
    instead: text === '' ? insteadOf(message, said) : undefined,
    promptTokens: tokenCount(usage?.prompt_tokens),
    completionTokens: tokenCount(usage?.completion_tokens),
  };
}

const CUT_OFF = new Set(['length', 'max_tokens', 'max_output_tokens', 'model_length', 'incomplete']);
const FILTERED = new Set(['content_filter', 'safety', 'sensitive']);
/** White space and zero-width characters. At the end, a joiner may belong to an emoji. */
const EMPTY_AT_START = /[\s\u200B-\u200D\u2060\uFEFF]/;
const EMPTY_AT_END = /[\s\u200B\u200C\u2060\uFEFF]/;

/** By index, because a regular expression for the end takes quadratic time on a long gap in the middle. */
function trimmed(text: string): string {
  let start = 0;
  let end = text.length;
  while (EMPTY_AT_START.test(text.charAt(start))) start += 1;
  while (end > start && EMPTY_AT_END.test(text.charAt(end - 1))) end -= 1;
  return text.slice(start, end);
}

function refusedBy(message: Fields, choice: Fields): ChatAnswer['refusedBy'] {
  if (FILTERED.has(lowerCase(choice.finish_reason))) return 'filter';
  const isDeclined = [message, ...partsOf(message.content)].some(isRefusal);
  return isDeclined || lowerCase(choice.finish_reason) === 'refusal' ? 'model' : undefined;
}

/** Whether a message, or a part of its content, has words of refusal. */
function isRefusal(messageOrPart: unknown): boolean {
  const refusal = fieldsOf(messageOrPart)?.refusal;
  return typeof refusal === 'string' && !isBlank(refusal);
}

function insteadOf(message: Fields, said: string): ChatAnswer['instead'] {
  if (Array.isArray(message.tool_calls) && message.tool_calls.length > 0) return 'tool calls';
  const thoughts = [said, textOf(message.reasoning_content), textOf(message.reasoning)];
  const hasThoughtParts = Array.isArray(message.content) && message.content.length > 0;
  return hasThoughtParts || thoughts.some((each) => !isBlank(each)) ? 'thoughts' : undefined;
}

/** A text, or the texts among the parts of a content. Other parts, such as thoughts, are not for the customer. */
function textOf(content: unknown): string {
  if (typeof content === 'string') return content;
  return partsOf(content).map(partText).join('');
}

function partsOf(content: unknown): unknown[] {
  return Array.isArray(content) ? content : [content];
}

function partText(part: unknown): string {
  if (typeof part === 'string') return part;
  const { type, text } = fieldsOf(part) ?? {};
  return typeof text === 'string' && (type === undefined || type === 'text' || type === 'output_text') ? text : '';
}

/** Checked because the database columns are 32-bit integers, and a server may send anything. */
function tokenCount(tokens: unknown): number | null {
  return typeof tokens === 'number' && tokens >= 0 && tokens < 2 ** 31 ? Math.round(tokens) : null;
}

/**
 * The error in a body: `{"error": {…}}`, `{"error": "…"}`, or either in a list. If the body is known to be an error, also with the
 * fields at its top level, as older vLLM and FastAPI write them.
 */
function providerError(body: unknown, isError = false): ProviderError | undefined {
  const fields = fieldsOf(Array.isArray(body) ? body[0] : body);
  if (!fields) return undefined;
  const { error } = fields;
  // Some servers send an empty error with an answer.
  if (typeof error === 'string' && error !== '') return errorOf({ ...fields, message: error });
  const errorFields = fieldsOf(error) ?? {};
  if (Object.keys(errorFields).length > 0) return errorOf(errorFields);
  return isError || fields.object === 'error' ? errorOf({ message: fields.detail, ...fields }) : undefined;
}

function errorOf({ message, code, type, status }: Fields): ProviderError {
  const word = [code, status].find((each) => typeof each === 'string');
  return {
    message: typeof message === 'string' ? message : (JSON.stringify(message) ?? ''),
    ...(typeof word === 'string' ? { code: word } : {}),
    ...(typeof type === 'string' ? { type } : {}),
  };
}

function statusIn(fields: Fields | undefined): number | undefined {
  const error = fieldsOf(fields?.error) ?? fields;
  const statuses = [error?.status, error?.code, fields?.status].map(Number);
  return statuses.find((status) => Number.isInteger(status) && status >= 400 && status <= 599);
}

function lowerCase(value: unknown): string {
  return typeof value === 'string' ? value.toLowerCase() : '';
}

function fieldsOf(value: unknown): Fields | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : undefined;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text.replace(/^\uFEFF/, ''));
  } catch {
    return undefined;
  }
}
