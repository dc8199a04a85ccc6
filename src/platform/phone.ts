/** Phone numbers as callers write them, in the one form that is kept: E.164 (ITU-T), with its plus. */
import { parsePhoneNumberFromString, validatePhoneNumberLength } from 'libphonenumber-js';
import { z } from 'zod';

/** Numbers that are kept free for trying and for films (North American Numbering Plan): 555-0100 to 555-0199, with or without an area code. */
const FICTIONAL = /^\+1(?:\d{3})?55501\d\d$/;

/** The number in E.164, from any usual way of writing it with its country code; undefined when it cannot be a number. */
export function normalisedPhone(written: string): string | undefined {
  const text = written.trim();
  if (!/^\+[\d\s().\-/]{5,30}$/.test(text)) return undefined;
  const digits = `+${text.replace(/\D/g, '')}`;
  if (FICTIONAL.test(digits)) return digits;
  if (validatePhoneNumberLength(digits) !== undefined) return undefined;
  return parsePhoneNumberFromString(digits)?.number;
}

/** A number in a request, normalised. */
export const phoneSchema = z
  .string()
  .max(40)
  .transform((written, context) => {
    const phone = normalisedPhone(written);
    if (phone !== undefined) return phone;
    context.addIssue({ code: 'custom', message: 'must be a phone number with its country code, such as +15550100' });
    return z.NEVER;
  })
  .meta({ description: 'A phone number with its country code; kept in E.164.', example: '+15550100' });
