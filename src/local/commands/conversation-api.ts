/** Reads a customer's conversation from the API of a running instance. */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { conversationWorkflowId } from '../../../workflows/contract';
import type { Instance } from '../instance-file';

const conversationsSchema = z.object({
  data: z.array(
    z.object({
      id: z.string(),
      workflowId: z.string(),
      mode: z.string(),
      attention: z.array(z.object({ text: z.string(), since: z.string() })),
      contact: z.object({ phone: z.string().nullable() }),
    }),
  ),
});
type ListedConversation = z.output<typeof conversationsSchema>['data'][number];

const messagesSchema = z.object({
  data: z.array(
    z.object({
      id: z.string(),
      author: z.string().nullable(),
      authorName: z.string().nullable(),
      providerMessageId: z.string().nullable(),
      outcome: z.string().nullable(),
      failure: z.string().nullable(),
      createdAt: z.string(),
    }),
  ),
});

/** The worker stores a conversation shortly after the API accepts its first message. */
const MAX_ATTEMPTS = 20;
const RETRY_DELAY_MS = 500;
const REQUEST_TIMEOUT_MS = 2_000;

/** The workflow id for a customer who has just written; undefined if the API does not list it in time. */
export async function findConversation(instance: Instance, phone: string): Promise<string | undefined> {
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt += 1) {
    // The API may be restarting.
    const found = await newestConversation(instance, phone).catch(() => undefined);
    if (found !== undefined) return found.workflowId;
    await sleep(RETRY_DELAY_MS);
  }
  return undefined;
}

/** The person who wrote a message by hand; undefined if nobody did, or the API does not say so. */
export async function findAuthor(instance: Instance, phone: string, messageId: string): Promise<string | undefined> {
  try {
    const conversation = await newestConversation(instance, phone);
    if (conversation === undefined) return undefined;
    const { data } = messagesSchema.parse(await ask(instance, `/${conversation.id}/messages?limit=20`));
    const message = data.find(({ id }) => id === messageId);
    return message?.author === 'person' ? (message.authorName ?? 'a person') : undefined;
  } catch {
    // The API may be restarting.
    return undefined;
  }
}

/** Why a message has no reply yet. `isFinal`: none will come. */
export interface NoReply {
  text: string;
  isFinal: boolean;
}

/** Why the message with WhatsApp's id `wamid` has no reply; undefined if it has one, or the API does not respond. */
export async function whyNoReply(instance: Instance, phone: string, wamid: string): Promise<NoReply | undefined> {
  try {
    const conversation = await newestConversation(instance, phone);
    if (conversation === undefined) return waiting('Parley has accepted the message, but no worker has stored it yet');
    const { data } = messagesSchema.parse(await ask(instance, `/${conversation.id}/messages?limit=100`));
    const message = data.find(({ providerMessageId }) => providerMessageId === wamid);
    if (message === undefined) return waiting('Parley has accepted the message, but no worker has stored it yet');
    if (message.outcome !== null) return reasonOf(message.outcome, message.failure);
    if (conversation.mode === 'human') return final('a person has taken over the conversation');
    if (conversation.mode === 'paused') return final('the conversation is paused');
    const fresh = conversation.attention.filter(({ since }) => since >= message.createdAt);
    return waiting(fresh.at(-1)?.text ?? 'Parley is still working on it');
  } catch {
    // The API may be restarting.
    return undefined;
  }
}

function waiting(text: string): NoReply {
  return { text, isFinal: false };
}

function reasonOf(outcome: string, failure: string | null): NoReply | undefined {
  switch (outcome) {
    case 'answered':
    case 'merged':
    case 'superseded':
      return undefined;
    case 'ai_disabled':
      return final('answers are off (CHATBOT_ENABLED, AI_ENABLED), or no model has a key; the summary of npm start says what is missing');
    case 'paused':
      return final('the conversation is paused');
    case 'human':
      return final('a person has answered, or settled it in another way');
    case 'unsupported':
      return final('Parley does not answer messages of this kind');
    case 'loop':
      return final('the same text came again and again, or there were too many replies within an hour');
    case 'unconfirmed':
      return waiting('a reply was sent, but it is not yet known whether it was delivered');
    default:
      return final(`${failure ?? 'Parley does not answer it'} (outcome ${outcome})`);
  }
}

function final(text: string): NoReply {
  return { text, isFinal: true };
}

/** Among those with this business number; the same person may also write to others. @throws if the API does not respond */
async function newestConversation(instance: Instance, phone: string): Promise<ListedConversation | undefined> {
  const digits = phone.replace(/\D/g, '');
  const ours = conversationWorkflowId(instance.phoneNumberId ?? '', '');
  const { data } = conversationsSchema.parse(await ask(instance, '?limit=100'));
  return data.find(({ workflowId, contact }) => workflowId.startsWith(ours) && contact.phone === digits);
}

async function ask({ apiUrl, apiKey }: Instance, path: string): Promise<unknown> {
  const headers = { Authorization: `Bearer ${apiKey}` };
  const response = await fetch(`${apiUrl}/api/v1/conversations${path}`, { headers, signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
  return await response.json();
}
