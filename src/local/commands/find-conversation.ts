/** Which workflow a customer's conversation is, as the API of a running instance knows it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { conversationWorkflowId } from '../../../workflows/contract';
import type { Instance } from '../instance-file';

const listSchema = z.object({
  data: z.array(z.object({ workflowId: z.string(), contact: z.object({ phone: z.string().nullable() }) })),
});
type Listed = z.output<typeof listSchema>['data'];

/** The worker records a conversation a moment after its first message was taken. */
const ATTEMPTS = 20;
const ASK_AGAIN_MS = 500;
const ANSWER_WITHIN_MS = 2_000;

/** The workflow's id, for a customer who has just written; undefined when the API does not name it in time. */
export async function findConversation(running: Instance, phone: string): Promise<string | undefined> {
  const digits = phone.replace(/\D/g, '');
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const found = (await newestConversations(running)).find(({ contact }) => contact.phone === digits);
    if (found !== undefined) return found.workflowId;
    await sleep(ASK_AGAIN_MS);
  }
  return undefined;
}

/** Those of this business number: the same person may write to others. */
async function newestConversations({ apiUrl, apiKey, phoneNumberId }: Instance): Promise<Listed> {
  try {
    const headers = { Authorization: `Bearer ${apiKey}` };
    const signal = AbortSignal.timeout(ANSWER_WITHIN_MS);
    const answer = await fetch(`${apiUrl}/api/v1/conversations?limit=100`, { headers, signal });
    const { data } = listSchema.parse(await answer.json());
    return data.filter(({ workflowId }) => workflowId.startsWith(conversationWorkflowId(phoneNumberId ?? '', '')));
  } catch {
    // It may be starting again.
    return [];
  }
}
