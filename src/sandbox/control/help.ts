/** What the sandbox says of its own HTTP: its addresses, and what is wrong with a request. docs/sandbox.md says more. */
import type { Request, Response } from 'express';
import { z } from 'zod';

const DOCUMENTATION = 'docs/sandbox.md';

/** Every address under /sandbox. */
export const CONTROL_ADDRESSES = {
  'POST /sandbox/customers/<phone>/messages': 'a customer writes on WhatsApp',
  'GET /sandbox/customers/<phone>/messages': 'the chat as the customer sees it',
  'GET /sandbox/customers/<phone>/events': 'the chat as a live stream',
  'GET /sandbox/calls': 'every call',
  'POST /sandbox/calls': 'somebody calls the business',
  'GET /sandbox/calls/dialled?number=<phone>': 'how often a phone rang; also by name=<name>, or in all',
  'GET /sandbox/calls/<id or name>': 'a call and what happened in it',
  'GET /sandbox/calls/<id or name>/events': 'a call as a live stream',
  'POST /sandbox/calls/<id or name>/hang-up': 'the person on the phone hangs up',
  'GET /sandbox/plays': 'the plays that wait for calls',
  'PUT /sandbox/plays': 'what the next calls meet',
  'DELETE /sandbox/plays': 'takes all plays back',
  'GET /sandbox/faults': 'the faults that wait for requests',
  'PUT /sandbox/faults': 'what the next requests to WhatsApp, Vapi and the models meet',
  'DELETE /sandbox/faults': 'takes all faults back',
  'GET /sandbox/stats': 'totals since the start',
} as const;

/** Answers who looks at the sandbox with a browser or with curl. */
export function describeSandbox(response: Response): void {
  const sandbox = 'plays WhatsApp, voice calls and a model for Parley; bodies are JSON (Content-Type: application/json)';
  response.type('json').send(`${JSON.stringify({ sandbox, documentation: DOCUMENTATION, addresses: CONTROL_ADDRESSES }, null, 2)}\n`);
}

/** Something that a request carries: its form, and an example of it. */
interface Expected<S extends z.ZodType> {
  in: 'body' | 'query';
  schema: S;
  example: unknown;
}

/** A body in JSON. */
export function inBody<S extends z.ZodType>(schema: S, example: z.input<S>): Expected<S> {
  return { in: 'body', schema, example };
}

/** What stands behind the question mark. */
export function inQuery<S extends z.ZodType>(schema: S, example: string): Expected<S> {
  return { in: 'query', schema, example };
}

/** What a request carries; undefined when it is not understood: then it has been answered with a 400 that says why. */
export function understood<S extends z.ZodType>(expected: Expected<S>, request: Request, response: Response): z.output<S> | undefined {
  const parsed = expected.schema.safeParse(request[expected.in]);
  if (parsed.success) return parsed.data;
  const isMissing = expected.in === 'body' && request.body === undefined;
  const error = isMissing
    ? 'body: no JSON came; send it with the header Content-Type: application/json'
    : parsed.error.issues.map((issue) => explain(issue, expected)).join('; ');
  response.status(400).json({ error, example: expected.example, documentation: DOCUMENTATION });
  return undefined;
}

function explain(issue: z.core.$ZodIssue, expected: Expected<z.ZodType>): string {
  const path = z.core.toDotPath(issue.path) || expected.in;
  if (issue.code !== 'unrecognized_keys') return `${path}: ${issue.message}`;
  return `${path}: no field ${issue.keys.join(', ')}; the fields are ${fieldsAt(expected.schema, issue.path).join(', ')}`;
}

/** Read from the schema itself, so that what is said stays true. */
function fieldsAt(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let at: z.core.JSONSchema.BaseSchema = z.toJSONSchema(schema, { io: 'input' });
  for (const part of path) {
    const next = typeof part === 'number' ? at.items : at.properties?.[String(part)];
    if (typeof next !== 'object' || Array.isArray(next)) return [];
    at = next;
  }
  return Object.keys(at.properties ?? {});
}
