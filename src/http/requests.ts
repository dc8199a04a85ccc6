/** Parses requests with the schemas of the OpenAPI document. */
import type { Request, Response } from 'express';
import { z } from 'zod';
import { cutText } from '../platform/text';
import { ApiError } from './errors';

/** Longest name of an unknown parameter in an error, in characters. */
const MAX_NAME = 40;

/** Parses `input`. @throws ApiError 400 that names each invalid field, never its value */
export function parsed<T extends z.ZodType>(schema: T, input: unknown): z.output<T> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  throw new ApiError(400, result.error.issues.map((issue) => [...issue.path.map(String), issue.message].join(': ')).join('; '));
}

/**
 * Parses a query. Strict, because a misspelt filter would return everything, and a repeated one is ambiguous.
 * @throws ApiError 400 that names each invalid parameter and what is allowed, never a value
 */
export function parsedQuery<T extends z.ZodObject>(schema: T, query: Request['query']): z.output<T> {
  const known = Object.keys(schema.shape);
  const problems = Object.entries(query).flatMap(([name, value]) => {
    if (!known.includes(name))
      return [`${cutText(name, MAX_NAME)}: is not a parameter of this operation; allowed: ${known.join(', ') || 'none'}`];
    return Array.isArray(value) ? [`${name}: must be given once`] : [];
  });
  if (problems.length > 0) throw new ApiError(400, problems.join('; '));
  return parsed(schema, query);
}

/** An integer in a query. Digits only: `Number` would also accept `0x10`, `1e1` and an empty string. */
export function integerParameter(min: number, max: number) {
  return z
    .string()
    .regex(/^-?[0-9]{1,9}$/, 'must be a whole number')
    .transform(Number)
    .pipe(z.int().min(min).max(max))
    .meta({ override: { type: 'integer', minimum: min, maximum: max, pattern: undefined } });
}

/** A place in a list, `<time>_<id>`, that an earlier response named in `field`. */
export function cursorFrom(field: 'next' | 'after') {
  return z
    .string()
    .regex(/^[0-9]{1,13}_[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/, invalidCursor(field))
    .transform((cursor) => {
      const [atMs = '0', id = ''] = cursor.split('_');
      return { at: new Date(Number(atMs)), id };
    });
}

/** The error message for a cursor that did not come from a response. */
export function invalidCursor(field: string): string {
  return `must be the \`${field}\` of an earlier response`;
}

/** Below the minute after which proxies usually close an idle request. */
const MAX_WAIT_SECONDS = 55;

/** How many seconds a request may stay open until there is a result. */
export const waitSeconds = integerParameter(0, MAX_WAIT_SECONDS);

/** Text of 1 to `max` characters. PostgreSQL does not store NUL; a lone surrogate is not valid text. */
export function validText(max: number) {
  return z
    .string()
    .min(1)
    .max(max)
    .refine((value) => !value.includes('\0') && value.isWellFormed(), 'must be valid text');
}

/** An optional field of a body. `null` counts as left out, because templates render a missing value as null. */
export function orNull<T extends z.ZodType>(schema: T) {
  return schema.nullish().transform((value) => value ?? undefined);
}

/** A boolean in a query. */
export const booleanParameter = z.enum(['true', 'false']).transform((value) => value === 'true');

/** The query of an operation without parameters. */
export const noQuery = z.strictObject({});

/** Aborts when the client disconnects, or at once if it already has. Call it before awaiting anything. */
export function clientLeft(response: Response): AbortSignal {
  const left = new AbortController();
  if (response.destroyed) left.abort();
  else response.once('close', () => left.abort());
  return left.signal;
}
