/** Turns a model's text into messages for WhatsApp. */
import { MAX_TEXT_LENGTH } from './client';
import { splitText } from './split-text';
import { toWhatsAppMarks } from './whatsapp-marks';

/** How much of a reply is converted if only one message can be sent: more than fits into it, whatever the marks. */
const MAX_SINGLE_LENGTH = 20 * MAX_TEXT_LENGTH;

/** The messages of a reply, in order: at least one, each storable and within WhatsApp's limit. */
export function messagesOf(reply: string): string[] {
  return splitText(textOf(reply), MAX_TEXT_LENGTH);
}

/** The reply as a single message, cut visibly if it is too long. */
export function singleMessageOf(reply: string): string {
  const text = textOf(reply.slice(0, MAX_SINGLE_LENGTH));
  return text.length <= MAX_TEXT_LENGTH ? text : cut(text, MAX_TEXT_LENGTH - 1);
}

function cut(text: string, length: number): string {
  return `${text.slice(0, length)}…`.toWellFormed();
}

/** PostgreSQL stores neither NUL nor lone surrogates. */
function textOf(reply: string): string {
  return toWhatsAppMarks(reply.replaceAll('\0', '').toWellFormed());
}
