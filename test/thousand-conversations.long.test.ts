/**
 * A thousand people write five messages each, and all their conversations run at once: every message ends with an outcome, nobody gets an answer that is another one's,
 * and the memory of the API and the worker stays bounded. Prints the memory.
 */
import { readFileSync } from 'node:fs';
import { platform } from 'node:os';
import { balance, eventually } from './support/expectations';
import { startSuite } from './support/suite';
import type { RunningProcess, System } from './support/system';

const PEOPLE = 1_000;
const MESSAGES = 5;
/** Webhooks under way at the same moment: as many as one development server of Temporal takes on a busy machine. */
const AT_ONCE = 20;
/** As patient as Kapso: what is refused for a moment is sent again. */
const RETRY_DELAYS_MS = [1_000, 5_000, 10_000, 30_000];
const RUN_LIMIT_MS = 15 * 60_000;

/** Peaks in MiB, with room for a slow machine: about twice what was measured. */
const MOST_MEMORY = { api: 500, worker: 1_000 };

let system: System;
/** Prompts with the words of several people. */
const mixed: string[] = [];

beforeAll(async () => {
  system = await startSuite('thousand', {
    environment: () => ({ REPLY_QUIET_MS: '1000' }),
    sandbox: { webhookRetryDelaysMs: RETRY_DELAYS_MS },
  });
  system.sandbox.models.program({
    reply: ({ messages }) => {
      const said = messages.map(({ content }) => content).join('\n');
      const people = [...new Set(peopleIn(said))];
      if (people.length !== 1) mixed.push(people.join());
      return `to person-${people[0]}`;
    },
  });
});
afterAll(() => system?.close());

const phoneOf = (person: number) => `1555${String(2_000_000 + person)}`;

/** Who is named in a text. */
function peopleIn(text: string): string[] {
  return [...text.matchAll(/\bperson-(\d+)\b/g)].map(([, person = '']) => person);
}

async function writes(person: number): Promise<void> {
  for (let number = 1; number <= MESSAGES; number += 1) {
    const text = `person-${person} says ${number}`;
    const { status } = await system.sandbox.kapso.customerSends({ from: phoneOf(person), text });
    expect(status).toBe(200);
  }
}

/** Peak resident memory, in MiB; undefined where the system does not tell. */
function peakMemory({ child }: RunningProcess): number | undefined {
  if (platform() !== 'linux') return undefined;
  const [, kilobytes] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8')) ?? [];
  return Math.round(Number(kilobytes) / 1024);
}

test(
  'when a thousand people write five messages each at once, then each gets answers of their own, and memory stays bounded',
  async () => {
    const [worker] = system.workers as [RunningProcess];
    const queue = Array.from({ length: PEOPLE }, (_item, person) => person);
    const startedAtMs = Date.now();
    const writer = async () => {
      for (let person = queue.shift(); person !== undefined; person = queue.shift()) await writes(person);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, writer));
    const writtenAfterMs = Date.now() - startedAtMs;
    const counts = await eventually(async () => {
      const now = await balance(system.db);
      expect(now).toMatchObject({ total: PEOPLE * MESSAGES });
      expect(now.pending).toBeUndefined();
      return now;
    }, RUN_LIMIT_MS);
    const answeredAfterMs = Date.now() - startedAtMs;
    await system.sandbox.kapso.settled();

    const { answered = 0, merged = 0 } = counts;
    expect(answered + merged).toBe(PEOPLE * MESSAGES);
    expect(mixed).toEqual([]);
    for (let person = 0; person < PEOPLE; person += 1) {
      const replies = system.sandbox.kapso.visibleTo(phoneOf(person)).map(({ text }) => text ?? '');
      expect(replies.length).toBeGreaterThan(0);
      expect(new Set(replies.flatMap(peopleIn))).toEqual(new Set([String(person)]));
    }
    const rows = await system.db.message.findMany({
      where: { direction: 'inbound' },
      orderBy: { position: 'asc' },
      select: { text: true, conversation: { select: { contact: { select: { phone: true } } } } },
    });
    const byPhone = new Map<string, string[]>();
    for (const { text, conversation } of rows) {
      const phone = conversation.contact.phone ?? '';
      byPhone.set(phone, [...(byPhone.get(phone) ?? []), text ?? '']);
    }
    for (let person = 0; person < PEOPLE; person += 1) {
      const expected = Array.from({ length: MESSAGES }, (_item, index) => `person-${person} says ${index + 1}`);
      expect(byPhone.get(phoneOf(person))).toEqual(expected);
    }

    const memory = { api: peakMemory(system.api), worker: peakMemory(worker) };
    process.stderr.write(
      `${PEOPLE} people, ${PEOPLE * MESSAGES} messages: written in ${Math.round(writtenAfterMs / 1_000)} s, ` +
        `all answered after ${Math.round(answeredAfterMs / 1_000)} s with ${answered} replies; ` +
        `peak memory: API ${memory.api} MiB, worker ${memory.worker} MiB\n`,
    );
    expect(memory.api ?? 0).toBeLessThan(MOST_MEMORY.api);
    expect(memory.worker ?? 0).toBeLessThan(MOST_MEMORY.worker);
  },
  RUN_LIMIT_MS + 60_000,
);
