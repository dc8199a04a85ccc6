/**
 * Every fixture, damaged at random: fields deleted, of another type, wrapped, and the header with the event's name gone. The seed stands
 * in each failure; the same seed makes the same body.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { damagedCase } from '../../../test/support/damaged-bodies';
import { type KapsoEvent, readKapsoBody, readKapsoJson } from './events';

const FIXTURES = join(__dirname, '../../../test/fixtures/kapso');
const CASES_PER_FIXTURE = 300;

interface Fixture {
  file: string;
  body: unknown;
  event: string | undefined;
  /** WhatsApp's ids of the customers' messages in it. */
  inboundIds: string[];
  hasOutbound: boolean;
}

const index: { files: { file: string; headers: Record<string, string> }[] } = JSON.parse(
  readFileSync(join(FIXTURES, 'index.json'), 'utf8'),
);
const fixtures: Fixture[] = index.files
  .filter(({ file }) => /^(webhook_|meta_raw_)/.test(file))
  .map(({ file, headers }) => {
    const body = withoutMentions(JSON.parse(readFileSync(join(FIXTURES, file), 'utf8')));
    const event = headers['X-Webhook-Event'];
    const events = readKapsoJson(body, event);
    return { file, body, event, inboundIds: messageIdsOf(events), hasOutbound: events.some(({ type }) => type === 'status') };
  });

/** A conversation also names its last message; only the message itself is to be found again. */
function withoutMentions(body: unknown): unknown {
  return JSON.parse(JSON.stringify(body), (name, value: unknown) => (name === 'last_message_id' ? undefined : value));
}

function messageIdsOf(events: readonly KapsoEvent[]): string[] {
  return events.flatMap((event) =>
    event.type === 'message' && event.message.fromBusiness === undefined ? [event.message.providerMessageId] : [],
  );
}

function expectSound(event: KapsoEvent): void {
  if (event.type === 'skipped') return;
  if (event.type === 'unreadable') {
    expect(event.reason).toMatch(/^[a-z_]{1,40}$/);
    expect(event.detail).not.toBe('');
    // What is kept is read again some day.
    expect(() => readKapsoJson(event.item, undefined)).not.toThrow();
    return;
  }
  const id = event.type === 'message' ? event.message.providerMessageId : event.providerMessageId;
  expect(id).not.toBe('');
  if (event.phoneNumberId !== undefined) expect(event.phoneNumberId).toMatch(/^[\w.-]{1,64}$/);
  expect(Number.isSafeInteger(event.type === 'message' ? event.message.sentAtMs : event.atMs)).toBe(true);
  if (event.type === 'message') expect(event.contact.phone || event.contact.businessScopedUserId).toBeTruthy();
  expect(textsIn(event).filter((text) => text.includes('\0') || !text.isWellFormed())).toEqual([]);
}

function textsIn(value: unknown): string[] {
  if (typeof value === 'string') return [value];
  return typeof value === 'object' && value !== null ? Object.entries(value).flatMap(([name, inner]) => [name, ...textsIn(inner)]) : [];
}

/** Everything that would be handed over or kept. */
function keptOf(events: readonly KapsoEvent[], body: unknown): string {
  return JSON.stringify(
    events.filter(({ type }) => type !== 'skipped').map((event) => (event.type === 'unreadable' && !('item' in event) ? body : event)),
  );
}

test.each(fixtures)('when $file is damaged, then nothing is thrown, lost, or taken for what it is not', (fixture) => {
  for (let seed = 1; seed <= CASES_PER_FIXTURE; seed += 1) {
    const { body, event, isOtherKind } = damagedCase(fixture, seed);
    const json = JSON.stringify(body);
    try {
      const events = readKapsoBody(Buffer.from(json), event);
      for (const each of events) expectSound(each);
      // No message out of something that was none: neither ours nor an event of another kind.
      if (fixture.inboundIds.length === 0) expect(messageIdsOf(events)).toEqual([]);
      const kept = keptOf(events, body);
      for (const id of isOtherKind ? [] : fixture.inboundIds) if (json.includes(id)) expect(kept).toContain(id);
    } catch (error) {
      throw new Error(`seed ${seed} (${event ?? 'no event'}): ${json}`, { cause: error });
    }
  }
});

test('when the fixtures are read, then both directions are among them', () => {
  expect(fixtures.filter(({ inboundIds }) => inboundIds.length > 0).length).toBeGreaterThan(15);
  expect(fixtures.filter(({ hasOutbound, inboundIds }) => hasOutbound && inboundIds.length === 0).length).toBeGreaterThan(6);
});

/** As the fixtures, but with the business as the sender: a reader that goes by `from` alone would take these for a customer's. */
const outbound = fixtures.filter(({ file, hasOutbound }) => hasOutbound && file.startsWith('webhook_v2'));

test.each(outbound)('when $file names the business as its sender, then no damage makes it the customer’s', (fixture) => {
  const { message, ...rest } = fixture.body as { message: object };
  const body = { ...rest, message: { ...message, from: '15550100001', to: '6281110000001' } };
  for (let seed = 1; seed <= CASES_PER_FIXTURE; seed += 1) {
    const { body: damagedBody, event } = damagedCase({ ...fixture, body }, seed);
    const ids = messageIdsOf(readKapsoBody(Buffer.from(JSON.stringify(damagedBody)), event));
    if (ids.length > 0) throw new Error(`seed ${seed} (${event ?? 'no event'}): ${JSON.stringify(damagedBody)}`);
  }
});
