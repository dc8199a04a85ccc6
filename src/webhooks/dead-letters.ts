/** Dead letters out of what a webhook brought and nobody can read. */
import { jsonLength } from '../platform/text';
import type { UnreadableEvent } from '../providers/kapso/events';
import type { WebhookLetter } from '../record/dead-letters';

/** Items name what stands around them again and again: beyond this they are kept as the body in which they came. */
const MOST_LETTERS = 100;

/** Each item as a letter of its own, or all of them as one with the whole body, where that is less. */
export function lettersOf(
  unreadable: readonly UnreadableEvent[],
  { rawBody, eventName }: { rawBody: Buffer; eventName: string | undefined },
): WebhookLetter[] {
  const [first] = unreadable;
  if (first === undefined) return [];
  const event = eventName === undefined ? {} : { event: eventName };
  if (!isKeptByItem(unreadable, rawBody)) {
    const detail = unreadable.length === 1 ? first.detail : `${first.detail} (${unreadable.length} items cannot be read.)`;
    return [{ source: 'kapso', reason: first.reason, detail, ...event, body: rawBody }];
  }
  return unreadable.map(({ reason, detail, phoneNumberId, providerMessageId, item }) => ({
    ...{ source: 'kapso', reason, detail, ...event, body: item },
    ...(phoneNumberId === undefined ? {} : { phoneNumberId }),
    ...(providerMessageId === undefined ? {} : { providerMessageId }),
  }));
}

function isKeptByItem(unreadable: readonly UnreadableEvent[], rawBody: Buffer): boolean {
  if (unreadable.length > MOST_LETTERS) return false;
  let left = 2 * rawBody.length + 64 * 1024;
  for (const event of unreadable) {
    // Infinite for what is nested too deep to be written down.
    left -= 'item' in event ? jsonLength(event.item) : Number.POSITIVE_INFINITY;
    if (left < 0) return false;
  }
  return true;
}
