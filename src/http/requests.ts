/** Reading what a caller sent by the schema that the OpenAPI document shows. */
import type { Response } from 'express';
import { z } from 'zod';
import { ApiError } from './errors';

/** What `input` says by `schema`. @throws ApiError 400 that names each wrong field and never quotes its value */
export function parsed<T extends z.ZodType>(schema: T, input: unknown): z.output<T> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  throw new ApiError(400, result.error.issues.map((issue) => [...issue.path.map(String), issue.message].join(': ')).join('; '));
}

/**
 * A whole number in a query. Digits only: `Number` would also take `0x10`, `1e1` and an empty text, and the document says integer.
 */
export function integerParameter(min: number, max: number) {
  return z
    .string()
    .regex(/^-?[0-9]{1,9}$/, 'must be a whole number')
    .transform(Number)
    .pipe(z.int().min(min).max(max))
    .meta({ override: { type: 'integer', minimum: min, maximum: max, pattern: undefined } });
}

/** `true` or `false` in a query. */
export const booleanParameter = z.enum(['true', 'false']).transform((value) => value === 'true');

/** Of an operation without parameters. Queries are strict everywhere: a misspelt filter would answer with everything. */
export const noQuery = z.strictObject({});

/** Fires when the client has gone, be it before this was asked; to be asked before anything is awaited. */
export function clientLeft(response: Response): AbortSignal {
  const left = new AbortController();
  if (response.destroyed) left.abort();
  else response.once('close', () => left.abort());
  return left.signal;
}
