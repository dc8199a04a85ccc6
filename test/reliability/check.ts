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
  /** Customers whose messages were recorded in another order than they were written. */
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
    outOfOrder: await customersOutOfOrder(system),
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

async function customersOutOfOrder({ db }: System): Promise<number> {
  const rows = await db.message.findMany({
    where: { direction: 'inbound' },
    orderBy: { position: 'asc' },
    select: { conversationId: true, text: true },
  });
  const last = new Map<string, number>();
  const disordered = new Set<string>();
  for (const { conversationId, text } of rows) {
    const number = numberIn(text ?? '');
    if (number !== (last.get(conversationId) ?? 0) + 1) disordered.add(conversationId);
    last.set(conversationId, number);
  }
  return disordered.size;
}
