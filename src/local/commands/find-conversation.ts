/** Finds the workflow of a customer's conversation through the API of a running instance. */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { conversationWorkflowId } from '../../../workflows/contract';
import type { Instance } from '../instance-file';

const listSchema = z.object({
  data: z.array(z.object({ workflowId: z.string(), contact: z.object({ phone: z.string().nullable() }) })),
});
type ListedConversations = z.output<typeof listSchema>['data'];

/** The worker stores a conversation shortly after the API accepts its first message. */
const MAX_ATTEMPTS = 20;
const RETRY_DELAY_MS = 500;
const REQUEST_TIMEOUT_MS = 2_000;

/** The workflow id for a customer who has just written; undefined if the API does not list it in time. */
export async function findConversation(instance: Instance, phone: string): Promise<string | undefined> {
  const digits = phone.replace(/\D/g, '');
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt += 1) {
    const found = (await newestConversations(instance)).find(({ contact }) => contact.phone === digits);
    if (found !== undefined) return found.workflowId;
    await sleep(RETRY_DELAY_MS);
  }
  return undefined;
}

/** The conversations with this business number; the same person may also write to others. */
async function newestConversations({ apiUrl, apiKey, phoneNumberId }: Instance): Promise<ListedConversations> {
  try {
    const headers = { Authorization: `Bearer ${apiKey}` };
    const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
    const answer = await fetch(`${apiUrl}/api/v1/conversations?limit=100`, { headers, signal });
    const { data } = listSchema.parse(await answer.json());
    return data.filter(({ workflowId }) => workflowId.startsWith(conversationWorkflowId(phoneNumberId ?? '', '')));
  } catch {
    // The API may be restarting.
    return [];
  }
}
