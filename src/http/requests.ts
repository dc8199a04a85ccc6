/** Parses requests with the schemas of the OpenAPI document. */
import type { Response } from 'express';
import { z } from 'zod';
import { ApiError } from './errors';

/** Parses `input`. @throws ApiError 400 that names each invalid field, never its value */
export function parsed<T extends z.ZodType>(schema: T, input: unknown): z.output<T> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  throw new ApiError(400, result.error.issues.map((issue) => [...issue.path.map(String), issue.message].join(': ')).join('; '));
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

/** An optional field of a body. `null` means that it was left out: templates render a missing value so. */
export function orNull<T extends z.ZodType>(schema: T) {
  return schema.nullish().transform((value) => value ?? undefined);
}

/** A boolean in a query. */
export const booleanParameter = z.enum(['true', 'false']).transform((value) => value === 'true');

/** The query of an operation without parameters. Queries are strict everywhere: a misspelt filter would return everything. */
export const noQuery = z.strictObject({});

/** Aborts when the client disconnects, or at once if it already has. Call it before awaiting anything. */
export function clientLeft(response: Response): AbortSignal {
  const left = new AbortController();
  if (response.destroyed) left.abort();
  else response.once('close', () => left.abort());
  return left.signal;
}
