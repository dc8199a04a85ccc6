/** What must hold after an outage: nothing lost, nothing answered twice, nothing out of order. */
import { balance } from '../support/expectations';
import type { System } from '../support/system';
import { numberIn, type Written } from './load';

/** The result of a row. */
export interface Findings {
  sent: number;
  recorded: number;
  /** How many messages have each outcome. */
  outcomes: Record<string, number>;
  /** Webhooks of messages that got a 200 at the first attempt. */
  takenAtOnce: number;
  /** Duration of the slowest of them, in ms. */
  slowestMs: number;
  /** Turns with more than one reply, in the database or on the customer's phone. */
  answeredTwice: number;
  /** Customers whose messages were recorded in another order than they came. */
  outOfOrder: number;
  /** Webhooks that Kapso gave up on, with those of statuses. */
  lostWebhooks: number;
  /** What does not hold, in words; empty: all is well. */
  problems: string[];
}

/** Whether every message has an outcome. */
export async function isSettled({ db }: System, sent: number): Promise<boolean> {
  const where = { direction: 'inbound' } as const;
  return (await db.message.count({ where: { ...where, outcome: { not: null } } })) >= sent;
}

/** Looks at everything, once the row has settled. */
export async function check(system: System, written: readonly Written[], takesAlways: boolean): Promise<Findings> {
  const atOnce = written.filter(({ status, attempts }) => status === 200 && attempts === 1);
  const counts = await countOutcomes(system);
  const found = {
    sent: written.length,
    ...counts,
    takenAtOnce: atOnce.length,
    slowestMs: Math.max(0, ...atOnce.map(({ tookMs = 0 }) => tookMs)),
    answeredTwice: (await repliesTwiceInDatabase(system)) + repliesTwiceOnPhones(system),
    outOfOrder: await customersOutOfOrder(system, written, takesAlways),
    lostWebhooks: system.sandbox.kapso.counts().webhooks.lost,
  };
  return { ...found, problems: problemsOf(found, takesAlways) };
}

function problemsOf(found: Omit<Findings, 'problems'>, takesAlways: boolean): string[] {
  const { sent, recorded, outcomes, takenAtOnce, answeredTwice, outOfOrder, lostWebhooks } = found;
  const sum = Object.values(outcomes).reduce((total, count) => total + count, 0);
  return [
    ...(recorded === sent ? [] : [`${sent} sent, but ${recorded} recorded`]),
    ...(sum === recorded ? [] : [`${recorded} recorded, but ${sum} have an outcome`]),
    ...(answeredTwice === 0 ? [] : [`${answeredTwice} turns were answered twice`]),
    ...(outOfOrder === 0 ? [] : [`messages of ${outOfOrder} customers are out of order`]),
    ...(lostWebhooks === 0 ? [] : [`Kapso gave up on ${lostWebhooks} webhooks`]),
    ...(takesAlways && takenAtOnce < sent ? [`${sent - takenAtOnce} webhooks did not get a 200 at the first attempt`] : []),
  ];
}

/** @throws if the totals do not balance */
async function countOutcomes({ db }: System): Promise<Pick<Findings, 'recorded' | 'outcomes'>> {
  const { total = 0, pending: _pending, ...outcomes } = await balance(db);
  return { recorded: total, outcomes };
}

async function repliesTwiceInDatabase({ db }: System): Promise<number> {
  const rows = await db.message.groupBy({
    by: ['replyToId'],
    where: { direction: 'outbound', partOfId: null, replyToId: { not: null } },
    _count: true,
    having: { replyToId: { _count: { gt: 1 } } },
  });
  return rows.length;
}

function repliesTwiceOnPhones({ sandbox }: System): number {
  const accepted = sandbox.kapso.sends().filter((send) => send.accepted);
  return accepted.length - new Set(accepted.map(({ correlation }) => correlation)).size;
}

/**
 * Messages of one customer must be recorded in the order in which they were written. After failed attempts, Kapso itself sends them in
 * another order: then in the order in which their webhooks got a 200.
 */
async function customersOutOfOrder({ db }: System, written: readonly Written[], takesAlways: boolean): Promise<number> {
  const rows = await db.message.findMany({
    where: { direction: 'inbound' },
    orderBy: { position: 'asc' },
    select: { text: true, conversation: { select: { contact: { select: { phone: true } } } } },
  });
  const messages = new Map(written.map((message) => [`${message.phone} ${message.number}`, message]));
  const recorded = new Map<string, Written[]>();
  for (const { text, conversation } of rows) {
    const phone = conversation.contact.phone ?? '';
    const message = messages.get(`${phone} ${numberIn(text ?? '')}`);
    if (message) recorded.set(phone, [...(recorded.get(phone) ?? []), message]);
  }
  const comesFirst = takesAlways ? wasWrittenFirst : wasTakenFirst;
  return [...recorded.values()].filter((own) =>
    own.some((earlier, index) => own.slice(index + 1).some((later) => comesFirst(later, earlier))),
  ).length;
}

function wasWrittenFirst(one: Written, other: Written): boolean {
  return one.number < other.number;
}

/** Longer than an accepted webhook takes: two that overlap have no order. */
const OVERLAP_MS = 3_000;

function wasTakenFirst(one: Written, other: Written): boolean {
  return (one.endedAtMs ?? 0) + OVERLAP_MS < (other.endedAtMs ?? 0);
}
