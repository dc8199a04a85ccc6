/** Turns a model's text into messages for WhatsApp. */
import { MAX_TEXT_LENGTH } from './client';
import { splitText } from './split-text';
import { toWhatsAppMarks } from './whatsapp-marks';

/** About 40,000 characters, more than models usually write at once. One that has lost its way must not flood a customer's phone. */
export const MAX_MESSAGES = 10;

/** More than `MAX_MESSAGES` need, whatever their marks come to. */
const MAX_READ_LENGTH = 2 * MAX_MESSAGES * MAX_TEXT_LENGTH;

/** The messages of a reply, in order: at least one, each storable and within WhatsApp's limit. Only a reply beyond `MAX_MESSAGES` is cut, visibly. */
export function messagesOf(reply: string): string[] {
  const messages = splitText(textOf(reply), MAX_TEXT_LENGTH);
  if (messages.length <= MAX_MESSAGES) return messages;
  return messages.slice(0, MAX_MESSAGES).map((text, index) => (index === MAX_MESSAGES - 1 ? cut(text, MAX_TEXT_LENGTH - 1) : text));
}

/** The reply as a single message, cut visibly if it is too long. */
export function singleMessageOf(reply: string): string {
  const text = textOf(reply);
  return text.length <= MAX_TEXT_LENGTH ? text : cut(text, MAX_TEXT_LENGTH - 1);
}

function cut(text: string, length: number): string {
  return `${text.slice(0, length)}…`.toWellFormed();
}

/** PostgreSQL stores neither NUL nor lone surrogates. */
function textOf(reply: string): string {
  return toWhatsAppMarks(reply.slice(0, MAX_READ_LENGTH).replaceAll('\0', '').toWellFormed());
}
