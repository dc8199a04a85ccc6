/** Phone numbers: normalised to the E.164 form (ITU-T) that is dialled, and to a matching key that all spellings of one number share. */
import { parseIncompletePhoneNumber, parsePhoneNumberFromString, validatePhoneNumberLength } from 'libphonenumber-js';
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

/** A number in E.164, or why the text is not one; `problem` never contains the text. */
export type ReadPhone = { phone: string } | { problem: string };

/** Direction marks, zero-width and other format characters, which surround a number copied from contacts or a chat. */
const INVISIBLE = /\p{Cf}/gu;
const EXAMPLE = 'write it with one, such as +15550100';
const SEPARATORS = /[\s()./\p{Pd}]/gu;

/**
 * Reads a number as people and WhatsApp write it: with its country code after `+` or `00`, or after nothing, as WhatsApp and this API show
 * it. National numbers are refused, because the country is unknown.
 */
export function readPhone(written: string): ReadPhone {
  const text = written.normalize('NFKC').replace(INVISIBLE, '').trim();
  const digits = parseIncompletePhoneNumber(text).replace(/\D/g, '');
  const rest = text
    .replace(/^\+/, '')
    .replace(SEPARATORS, '')
    .replace(/\p{Nd}/gu, '');
  if (rest !== '') return { problem: 'must be a phone number: a plus, digits, spaces, dashes, dots, slashes and parentheses' };
  if (digits === '') return { problem: 'has no digits; it must be a phone number with its country code' };
  if (!text.startsWith('+') && /^(?:\(|0(?!0))/.test(text)) return { problem: `has no country code; ${EXAMPLE}` };
  return readDigits(text.startsWith('+') ? digits : digits.replace(/^00/, ''));
}

function readDigits(digits: string): ReadPhone {
  const phone = `+${dialledDigits(digits)}`;
  if (FICTIONAL.test(phone)) return { phone };
  switch (validatePhoneNumberLength(phone)) {
    case undefined: {
      const number = parsePhoneNumberFromString(phone)?.number;
      return number === undefined ? { problem: `is not a phone number; ${EXAMPLE}` } : { phone: number };
    }
    case 'INVALID_COUNTRY':
      return { problem: `does not begin with a country code; ${EXAMPLE}` };
    case 'TOO_SHORT':
      return { problem: 'is too short for its country code' };
    case 'TOO_LONG':
      return { problem: 'is too long for its country code' };
    case 'INVALID_LENGTH':
    case 'NOT_A_NUMBER':
      return { problem: 'does not have as many digits as its country code requires' };
  }
}

/** The number in E.164 (see `readPhone`); undefined if the text is not one. */
export function normalisedPhone(written: string): string | undefined {
  const read = readPhone(written);
  return 'phone' in read ? read.phone : undefined;
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

/** A phone number in a request, in any spelling; parses to E.164. */
export const phoneSchema = z
  .string()
  .max(64)
  .transform((written, context) => {
    const read = readPhone(written);
    if ('phone' in read) return read.phone;
    context.addIssue({ code: 'custom', message: read.problem });
    return z.NEVER;
  })
  .meta({
    description: 'A phone number with its country code, in any spelling, with or without the plus. It is dialled and shown in E.164.',
    example: '+15550100',
  });
