/** Self-description of the sandbox's control API: its endpoints, and what is wrong with a request. See docs/sandbox.md. */
import type { Request, Response } from 'express';
import { z } from 'zod';

const DOCUMENTATION = 'docs/sandbox.md';

/** Every endpoint under /sandbox. */
export const CONTROL_ENDPOINTS = {
  'POST /sandbox/customers/<phone>/messages': 'send a WhatsApp message as a customer',
  'POST /sandbox/customers/<phone>/owner-messages': 'write to the customer as the owner, in the WhatsApp Business app',
  'GET /sandbox/customers/<phone>/messages': 'the chat as the customer sees it',
  'GET /sandbox/customers/<phone>/events': 'the chat as a live stream',
  'GET /sandbox/calls': 'all calls',
  'POST /sandbox/calls': 'call the business',
  'GET /sandbox/calls/dialled?number=<phone>': 'how often a phone rang; also by name=<name>, or in total',
  'GET /sandbox/calls/<id or name>': 'a call and its events',
  'GET /sandbox/calls/<id or name>/events': 'a call as a live stream',
  'POST /sandbox/calls/<id or name>/hang-up': 'hang up as the person on the phone',
  'GET /sandbox/plays': 'the active scenarios, for the next calls',
  'PUT /sandbox/plays': 'replace the scenarios',
  'DELETE /sandbox/plays': 'remove all scenarios',
  'GET /sandbox/faults': 'the active faults',
  'PUT /sandbox/faults': 'replace the faults of requests to WhatsApp, Vapi and the models',
  'DELETE /sandbox/faults': 'remove all faults',
  'GET /sandbox/stats': 'totals since the start',
} as const;

/** Lists the endpoints for people who open the sandbox in a browser or with curl. */
export function describeSandbox(response: Response): void {
  const sandbox = 'simulates WhatsApp, voice calls and a model for Parley; bodies are JSON (Content-Type: application/json)';
  response.type('json').send(`${JSON.stringify({ sandbox, documentation: DOCUMENTATION, addresses: CONTROL_ENDPOINTS }, null, 2)}\n`);
}

/** An expected part of a request: its schema and an example. */
interface RequestPart<S extends z.ZodType> {
  in: 'body' | 'query';
  schema: S;
  example: unknown;
}

/** Expects a JSON body. */
export function expectBody<S extends z.ZodType>(schema: S, example: z.input<S>): RequestPart<S> {
  return { in: 'body', schema, example };
}

/** Expects a query string. */
export function expectQuery<S extends z.ZodType>(schema: S, example: string): RequestPart<S> {
  return { in: 'query', schema, example };
}

/** Parses a part of the request. If it is invalid, responds with a 400 that explains why and returns undefined. */
export function parseOrReject<S extends z.ZodType>(
  expected: RequestPart<S>,
  request: Request,
  response: Response,
): z.output<S> | undefined {
  const parsed = expected.schema.safeParse(request[expected.in]);
  if (parsed.success) return parsed.data;
  const isMissing = expected.in === 'body' && request.body === undefined;
  const error = isMissing
    ? 'body: no JSON received; send it with the header Content-Type: application/json'
    : parsed.error.issues.map((issue) => explain(issue, expected)).join('; ');
  response.status(400).json({ error, example: expected.example, documentation: DOCUMENTATION });
  return undefined;
}

function explain(issue: z.core.$ZodIssue, expected: RequestPart<z.ZodType>): string {
  const path = z.core.toDotPath(issue.path) || expected.in;
  if (issue.code !== 'unrecognized_keys') return `${path}: ${issue.message}`;
  return `${path}: unknown field ${issue.keys.join(', ')}; the fields are ${fieldsAt(expected.schema, issue.path).join(', ')}`;
}

/** Field names at `path`, read from the schema itself so that the message stays correct. */
function fieldsAt(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let at: z.core.JSONSchema.BaseSchema = z.toJSONSchema(schema, { io: 'input' });
  for (const part of path) {
    const next = typeof part === 'number' ? at.items : at.properties?.[String(part)];
    if (typeof next !== 'object' || Array.isArray(next)) return [];
    at = next;
  }
  return Object.keys(at.properties ?? {});
}
