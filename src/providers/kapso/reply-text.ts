/** Turns a model's text into messages for WhatsApp. */
import { MAX_TEXT_LENGTH } from './client';
import { splitText } from './split-text';
import { toWhatsAppMarks } from './whatsapp-marks';

/** The messages of a reply, in order: at least one, each storable and within WhatsApp's limit. */
export function messagesOf(reply: string): string[] {
  return splitText(toWhatsAppMarks(storable(reply)), MAX_TEXT_LENGTH);
}

/** The reply as a single message, cut visibly if it is too long. */
export function singleMessageOf(reply: string): string {
  const text = toWhatsAppMarks(storable(reply));
  return text.length <= MAX_TEXT_LENGTH ? text : `${text.slice(0, MAX_TEXT_LENGTH - 1)}…`.toWellFormed();
}

/** PostgreSQL stores neither NUL nor lone surrogates. */
function storable(text: string): string {
  return text.replaceAll('\0', '').toWellFormed();
}
