/** Sends a WhatsApp template: the only kind of message that may be sent at any time, even to somebody who has not written. */
import { connectionFailure } from '../../platform/connection-failure';
import { withDeadline } from '../../platform/deadline';
import { sendRequest } from '../../platform/http-request';
import { readSendAnswer, SEND_PATH_VERSION, type SendAnswer } from './client';

export interface TemplateSend {
  baseUrl: string;
  apiKey: string;
  phoneNumberId: string;
  /** E.164. */
  to: string;
  /** Name and language code of an approved template with one parameter in its body. */
  template: string;
  language: string;
  parameter: string;
  /** As in `TextSend`. */
  correlationId: string;
  /** Timeout of the request, in milliseconds. */
  timeoutMs: number;
}

/** Meta refuses a longer body with its parameter (1024 characters), and the template has words of its own. */
const MAX_PARAMETER_LENGTH = 700;

/** Sends the template once. Never rejects. */
export async function sendTemplate({ baseUrl, apiKey, phoneNumberId, timeoutMs, ...send }: TemplateSend): Promise<SendAnswer> {
  const url = `${baseUrl}/meta/whatsapp/${SEND_PATH_VERSION}/${encodeURIComponent(phoneNumberId)}/messages`;
  const headers = { 'X-API-Key': apiKey, 'Content-Type': 'application/json' };
  try {
    return await withDeadline(timeoutMs, async (signal) => {
      return readSendAnswer(await sendRequest(url, { method: 'POST', headers, body: JSON.stringify(bodyOf(send)), signal }));
    });
  } catch (error) {
    return connectionFailure(error);
  }
}

function bodyOf({
  to,
  template,
  language,
  parameter,
  correlationId,
}: Pick<TemplateSend, 'to' | 'template' | 'language' | 'parameter' | 'correlationId'>) {
  // Meta refuses line breaks, tabs and runs of spaces in a parameter.
  const text = parameter.replace(/\s+/g, ' ').slice(0, MAX_PARAMETER_LENGTH);
  return {
    messaging_product: 'whatsapp',
    recipient_type: 'individual',
    to,
    type: 'template',
    template: { name: template, language: { code: language }, components: [{ type: 'body', parameters: [{ type: 'text', text }] }] },
    biz_opaque_callback_data: correlationId,
  };
}
