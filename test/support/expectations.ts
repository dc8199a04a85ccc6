/** Reads from the database for assertions, and waits for its contents. */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { PrismaClient } from '../../prisma/generated/client';
import type { System } from './system';

const BALANCE = readFileSync('prisma/balance.sql', 'utf8');

/** The message counts of prisma/balance.sql, without zeros. @throws Error if they do not balance */
export async function balance(db: PrismaClient): Promise<Record<string, number>> {
  const rows = await db.$queryRawUnsafe<Record<string, bigint | boolean>[]>(BALANCE);
  const row = rows[0] ?? {};
  if (row.balanced !== true)
    throw new Error(
      `the message counts do not balance: ${JSON.stringify(row, (_key, value) => (typeof value === 'bigint' ? Number(value) : value))}`,
    );
  return Object.fromEntries(
    Object.entries(row).flatMap(([name, value]) => (typeof value === 'bigint' && value > 0n ? [[name, Number(value)]] : [])),
  );
}

/** Repeats `check` until it does not throw, because the database emits no events. @throws its last error after `timeoutMs` */
export async function eventually<T>(check: () => Promise<T>, timeoutMs = 15_000): Promise<T> {
  const deadlineMs = Date.now() + timeoutMs;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() > deadlineMs) throw error;
      await delay(25);
    }
  }
}

/** An inbound message. */
export interface InboundRow {
  text: string | null;
  kind: string;
  outcome: string | null;
}

/** A customer's inbound messages, in order of arrival. */
export async function inboundOf(system: System, phone: string): Promise<InboundRow[]> {
  return await system.db.message.findMany({
    where: { direction: 'inbound', conversation: { contact: { phone } }, workspace: { kapsoPhoneNumberId: system.phoneNumberId } },
    orderBy: { position: 'asc' },
    select: { text: true, kind: true, outcome: true },
  });
}

/** The outcomes of a customer's messages, once there are `count` and none is pending. */
export async function outcomesOf(system: System, phone: string, count: number, timeoutMs?: number): Promise<string[]> {
  return await eventually(async () => {
    const rows = await inboundOf(system, phone);
    const outcomes = rows.flatMap((row) => row.outcome ?? []);
    if (outcomes.length !== count || rows.length !== count)
      throw new Error(`outcomes so far: ${JSON.stringify(rows.map((row) => row.outcome))}`);
    return outcomes;
  }, timeoutMs);
}

/** The replies in a customer's conversation, as stored in the outbox. */
export async function repliesOf(system: System, phone: string) {
  return await system.db.message.findMany({
    where: { direction: 'outbound', conversation: { contact: { phone } } },
    orderBy: { position: 'asc' },
    select: {
      id: true,
      text: true,
      status: true,
      provider: true,
      model: true,
      attempts: true,
      failure: true,
      sendAttempts: true,
      promptTokens: true,
      completionTokens: true,
      latencyMs: true,
    },
  });
}

let phones = 0;

/** A phone number that no other test of the suite uses. */
export function newPhone(): string {
  phones += 1;
  return `1555${String(Date.now() % 1_000_000).padStart(6, '0')}${String(phones).padStart(3, '0')}`;
}

/** The workflow id of a customer's conversation, once it is stored. */
export async function workflowIdOf(system: System, phone: string): Promise<string> {
  const { workflowId } = await eventually(() =>
    system.db.conversation.findFirstOrThrow({ where: { contact: { phone } }, select: { workflowId: true } }),
  );
  return workflowId;
}
