/** Finds webhooks that Kapso has paused: it does so after too many failed deliveries, and never resumes them by itself. */
import { z } from 'zod';
import { withDeadline } from '../../platform/deadline';
import { sendRequest } from '../../platform/http-request';

const TIMEOUT_MS = 10_000;

const webhookList = z.object({
  data: z.array(z.object({ id: z.string(), active: z.boolean().nullish().catch(undefined) }).catch({ id: '' })),
});

/** Kapso's ids of the number's paused webhooks, among the first 100. @throws if Kapso does not list them */
export async function findPausedWebhooks({
  baseUrl,
  apiKey,
  phoneNumberId,
}: {
  baseUrl: string;
  apiKey: string;
  phoneNumberId: string;
}): Promise<string[]> {
  const url = `${baseUrl}/platform/v1/whatsapp/phone_numbers/${encodeURIComponent(phoneNumberId)}/webhooks?per_page=100`;
  const { status, text } = await withDeadline(TIMEOUT_MS, (signal) =>
    sendRequest(url, { method: 'GET', headers: { 'X-API-Key': apiKey }, signal }),
  );
  if (status !== 200) throw new Error(`Kapso's list of webhooks responded with ${status}`);
  return webhookList.parse(JSON.parse(text)).data.flatMap(({ id, active }) => (active === false ? [id] : []));
}
