/** What people do beside the bot, over the API. */
import { randomUUID } from 'node:crypto';
import type { ModeChanged } from '../../workflows/contract';
import { eventually } from './expectations';
import { API_KEY, type System } from './system';

/** A response of the API. */
export interface Answer<T = Record<string, unknown>> {
  status: number;
  body: T & { detail?: string };
}

/** Sends a request with the key of the tests. */
export async function ask<T = Record<string, unknown>>(
  { apiUrl }: Pick<System, 'apiUrl'>,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer<T>> {
  const response = await fetch(`${apiUrl}/api/v1${path}`, {
    method,
    headers: { Authorization: `Bearer ${API_KEY}`, 'Content-Type': 'application/json', ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: (await response.json()) as Answer<T>['body'] };
}

/** The id of a customer's conversation, once it is stored. */
export async function conversationIdOf(system: System, phone: string): Promise<string> {
  const { id } = await eventually(() =>
    system.db.conversation.findFirstOrThrow({
      where: { contact: { phone }, workspace: { kapsoPhoneNumberId: system.phoneNumberId } },
      select: { id: true },
    }),
  );
  return id;
}

/** Changes who answers. `what`: `take-over`, `release`, `pause`, `assign`, `close`, `attention`. */
export async function change(system: System, phone: string, what: string, body: object = {}): Promise<Answer<ModeChanged>> {
  return await ask<ModeChanged>(system, 'POST', `/conversations/${await conversationIdOf(system, phone)}/${what}`, body);
}

/** Writes to a customer by hand. */
export async function answerByHand(system: System, phone: string, text: string, key: string = randomUUID()): Promise<Answer> {
  const path = `/conversations/${await conversationIdOf(system, phone)}/messages`;
  return await ask(system, 'POST', path, { text, by: 'Ann' }, { 'Idempotency-Key': key });
}
