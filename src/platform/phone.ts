/** Normalises phone numbers to E.164 (ITU-T), with the leading plus. */
import { parsePhoneNumberFromString, validatePhoneNumberLength } from 'libphonenumber-js';
import { z } from 'zod';

/** Numbers that the North American Numbering Plan reserves for fiction: 555-0100 to 555-0199, with or without an area code. */
const FICTIONAL = /^\+1(?:\d{3})?55501\d\d$/;

/** The number in E.164, from any common way of writing it with its country code; undefined if it is not a valid number. */
export function normalisedPhone(written: string): string | undefined {
  const text = written.trim();
  if (!/^\+[\d\s().\-/]{5,30}$/.test(text)) return undefined;
  const digits = `+${text.replace(/\D/g, '')}`;
  if (FICTIONAL.test(digits)) return digits;
  if (validatePhoneNumberLength(digits) !== undefined) return undefined;
  return parsePhoneNumberFromString(digits)?.number;
}

/** A phone number in a request; parses to E.164. */
export const phoneSchema = z
  .string()
  .max(40)
  .transform((written, context) => {
    const phone = normalisedPhone(written);
    if (phone !== undefined) return phone;
    context.addIssue({ code: 'custom', message: 'must be a phone number with its country code, such as +15550100' });
    return z.NEVER;
  })
  .meta({ description: 'A phone number with its country code; stored in E.164.', example: '+15550100' });
