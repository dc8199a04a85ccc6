/** Makes dead letters of what cannot be read in a webhook. */
import type { Sender } from '../http/webhook-ingress';
import { jsonLength } from '../platform/text';
import type { UnreadableEvent } from '../providers/kapso/events';
import type { WebhookLetter } from '../record/dead-letters';

/** Each item repeats its context, so more items than this are stored as the whole body. */
const MOST_LETTERS = 100;

/** One letter per item, or a single one with the whole body if that is smaller. */
export function lettersOf(
  unreadable: readonly UnreadableEvent[],
  { rawBody, eventName, sender }: { rawBody: Buffer; eventName: string | undefined; sender: Sender | undefined },
): WebhookLetter[] {
  const [first] = unreadable;
  if (first === undefined) return [];
  const event = { ...(eventName === undefined ? {} : { event: eventName }), ...sender };
  if (!isStoredByItem(unreadable, rawBody)) {
    const detail = unreadable.length === 1 ? first.detail : `${first.detail} (${unreadable.length} items cannot be read.)`;
    // Of a workspace: all items have its number.
    const number = sender !== undefined && first.phoneNumberId !== undefined ? { phoneNumberId: first.phoneNumberId } : {};
    return [{ source: 'kapso', reason: first.reason, detail, ...event, ...number, body: rawBody }];
  }
  return unreadable.map(({ reason, detail, phoneNumberId, providerMessageId, item }) => ({
    ...{ source: 'kapso', reason, detail, ...event, body: item },
    ...(phoneNumberId === undefined ? {} : { phoneNumberId }),
    ...(providerMessageId === undefined ? {} : { providerMessageId }),
  }));
}

function isStoredByItem(unreadable: readonly UnreadableEvent[], rawBody: Buffer): boolean {
  if (unreadable.length > MOST_LETTERS) return false;
  let left = 2 * rawBody.length + 64 * 1024;
  for (const event of unreadable) {
    // Infinite if it is nested too deeply to serialize.
    left -= 'item' in event ? jsonLength(event.item) : Number.POSITIVE_INFINITY;
    if (left < 0) return false;
  }
  return true;
}
