/** Phone numbers: normalised to the E.164 form (ITU-T) that is dialled, and to a matching key that all spellings of one number share. */
import { parsePhoneNumberFromString, validatePhoneNumberLength } from 'libphonenumber-js';
import { z } from 'zod';

/** Numbers that the North American Numbering Plan reserves for fiction: 555-0100 to 555-0199, with or without an area code. */
const FICTIONAL = /^\+1(?:\d{3})?55501\d\d$/;

/** A country in which one phone has several spellings. Digits only, without the plus. */
export interface SpellingRule {
  /** Matches every spelling; the groups are what all of them share. */
  pattern: RegExp;
  /** All spellings; the first is the matching key. */
  spellings: readonly [string, ...string[]];
  /** The spelling of the numbering plan. Without it, a number is dialled as it was given. */
  dialled?: string;
}

/** The matching key of a number that no rule matches is its digits. */
export const SPELLING_RULES: readonly SpellingRule[] = [
  // Mexico: WhatsApp kept the 1 of mobile numbers that the plan gave up in 2019.
  { pattern: /^521?(\d{10})$/, spellings: ['52$1', '521$1'], dialled: '52$1' },
  // Argentina: a mobile number has a 9 from abroad and none at home, where it cannot be told from a landline's.
  { pattern: /^549?(\d{10})$/, spellings: ['54$1', '549$1'] },
  // Brazil: mobile numbers (the eight digits begin with 6 to 9) got a ninth digit in front; those that came later never were without.
  { pattern: /^55([1-9]{2})9?([6-9]\d{7})$/, spellings: ['55$1$2', '55$19$2'], dialled: '55$19$2' },
  // Benin: all numbers got 01 in front in 2024.
  { pattern: /^229(?:01)?(\d{8})$/, spellings: ['229$1', '22901$1'], dialled: '22901$1' },
];

/**
 * The number in E.164, from any common way of writing it with its country code, WhatsApp's included; undefined if it is not a valid number.
 */
export function normalisedPhone(written: string): string | undefined {
  const text = written.trim();
  if (!/^\+[\d\s().\-/]{5,30}$/.test(text)) return undefined;
  const phone = `+${dialledDigits(text.replace(/\D/g, ''))}`;
  if (FICTIONAL.test(phone)) return phone;
  if (validatePhoneNumberLength(phone) !== undefined) return undefined;
  return parsePhoneNumberFromString(phone)?.number;
}

/** The same digits for every spelling of a number, with or without the plus. */
export function phoneMatchingKey(phone: string): string {
  return phoneSpellings(phone)[0];
}

/** Every spelling of the number, digits only; the first is the matching key. */
export function phoneSpellings(phone: string): readonly [string, ...string[]] {
  const digits = phone.replace(/\D/g, '');
  const rule = ruleOf(digits);
  if (!rule) return [digits];
  const [key, ...others] = rule.spellings;
  return [digits.replace(rule.pattern, key), ...others.map((spelling) => digits.replace(rule.pattern, spelling))];
}

function dialledDigits(digits: string): string {
  const rule = ruleOf(digits);
  return rule?.dialled === undefined ? digits : digits.replace(rule.pattern, rule.dialled);
}

function ruleOf(digits: string): SpellingRule | undefined {
  return SPELLING_RULES.find(({ pattern }) => pattern.test(digits));
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
