/**
 * Processes entries of Kapso's message list like webhooks. Those that are stored already are skipped: signalling them again would start the
 * workflows of conversations that have ended.
 */

import type { KapsoEvent, MessageEvent, StatusEvent, UnreadableEvent } from '../providers/kapso/events';
import { readMessageRow } from '../providers/kapso/lists';
import type { WebhookLetter } from '../record/dead-letters';
import { findAppliedStatuses, findStoredMessages, statusKey } from '../record/listed';
import { type HandOverDependencies, handOver } from './hand-over';
import { sorted } from './kapso';
import { ownId } from './statuses';

/** Rows of the message list of a number, in any order. */
interface ListedRows {
  phoneNumberId: string;
  rows: readonly unknown[];
}

/** Entries that came by no webhook. */
export interface Taken {
  messages: number;
  statuses: number;
  unreadable: number;
}

/** Entries that the database lacks, from one page or several. */
interface Gaps {
  messages: MessageEvent[];
  statuses: StatusEvent[];
  letters: WebhookLetter[];
}

/** Messages per hand-over, which has the deadline of a single webhook. */
const TOGETHER = 40;

/** Collects entries that the database lacks, page by page, then hands them over, the oldest message first. */
export interface ListedCollector {
  /** Adds a page. @throws the database's error */
  add(rows: readonly unknown[]): Promise<void>;
  /** @throws NotStoredError if anything is not stored; the rest may be */
  take(): Promise<Taken>;
}

/** A collector for the lists of one number. */
export function createListedCollector(phoneNumberId: string, dependencies: HandOverDependencies): ListedCollector {
  const gaps: Gaps = { messages: [], statuses: [], letters: [] };
  return {
    async add(rows) {
      const { messages, statuses, letters } = await findGaps({ phoneNumberId, rows }, dependencies);
      gaps.messages.push(...messages);
      gaps.statuses.push(...statuses);
      gaps.letters.push(...letters);
    },
    take: () => fillGaps(gaps, dependencies),
  };
}

/** Which of these rows the database lacks. @throws the database's error */
async function findGaps({ phoneNumberId, rows }: ListedRows, { db }: Pick<HandOverDependencies, 'db'>): Promise<Gaps> {
  const { messages, statuses, unreadable } = sorted(rows.flatMap((row) => withItem(readMessageRow(row, phoneNumberId), row)));
  const ids = [
    ...messages.map(({ message }) => message.providerMessageId),
    ...unreadable.flatMap((event) => event.providerMessageId ?? []),
  ];
  const [stored, applied] = await Promise.all([
    findStoredMessages(db, phoneNumberId, ids),
    findAppliedStatuses(
      db,
      statuses.map((event) => ({ ...event, messageId: ownId(event.correlationId) })),
    ),
  ]);
  return {
    messages: messages.filter(({ message }) => !stored.has(message.providerMessageId)),
    statuses: statuses.filter((event) => !applied.has(statusKey(event))),
    letters: unreadable.filter(({ providerMessageId: id }) => id === undefined || !stored.has(id)).map(letterOf),
  };
}

/** Hands the missing entries over, the oldest message first. @throws NotStoredError if any of them is not stored; the others may be */
async function fillGaps({ messages, statuses, letters }: Gaps, dependencies: HandOverDependencies): Promise<Taken> {
  // The list is newest first, and its times are whole seconds: rows of the same second keep their order.
  const inOrder = messages.toReversed().sort((one, other) => one.message.sentAtMs - other.message.sentAtMs);
  for (let start = 0; start < inOrder.length; start += TOGETHER)
    await handOver({ messages: inOrder.slice(start, start + TOGETHER), statuses: [], letters: [] }, dependencies);
  for (let start = 0; start < statuses.length; start += TOGETHER)
    await handOver({ messages: [], statuses: statuses.slice(start, start + TOGETHER), letters: [] }, dependencies);
  if (letters.length > 0) await handOver({ messages: [], statuses: [], letters }, dependencies);
  return { messages: messages.length, statuses: statuses.length, unreadable: letters.length };
}

/** An unreadable row is stored as it came. */
function withItem(events: KapsoEvent[], row: unknown): KapsoEvent[] {
  return events.map((event) => (event.type === 'unreadable' && event.item === undefined ? { ...event, item: row } : event));
}

function letterOf({ reason, detail, phoneNumberId, providerMessageId, item }: UnreadableEvent): WebhookLetter {
  return {
    ...{ source: 'kapso', reason, detail, body: item },
    ...(phoneNumberId === undefined ? {} : { phoneNumberId }),
    ...(providerMessageId === undefined ? {} : { providerMessageId }),
  };
}
