import { readFileSync } from 'node:fs';
import { Client } from 'pg';
import { type TestDatabase, testDatabase } from '../support/engine';
import { fillRecord } from './large-record';

let database: TestDatabase;
let client: Client;

beforeAll(async () => {
  database = await testDatabase('large_record');
  client = new Client({ connectionString: database.url });
  await client.connect();
});

afterAll(async () => {
  await client?.end();
  await database?.drop();
});

async function column(query: string): Promise<unknown[]> {
  return (await client.query({ text: query, rowMode: 'array' })).rows.flat();
}

const INDEXES = `SELECT pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class c ON c.oid = indrelid WHERE relnamespace = 'public'::regnamespace ORDER BY 1`;

test('when a record is filled, then it is as large as asked for, consistent, and has all of its indexes', async () => {
  const indexes = await column(INDEXES);
  const progress: string[] = [];
  await fillRecord(database.url, {
    phoneNumberId: '1',
    size: { contacts: 500, messages: 4_000, statusEvents: 12_000 },
    signal: new AbortController().signal,
    onProgress: (line) => progress.push(line),
  });

  const tables = ['contacts', 'contact_aliases', 'conversations', 'messages', 'message_status_events'];
  const counts = await column(tables.map((table) => `SELECT count(*)::int FROM ${table}`).join(' UNION ALL '));
  expect(counts).toEqual([500, 500, 500, 4_000, 12_000]);
  expect(await column(INDEXES)).toEqual(indexes);
  const { rows } = await client.query(readFileSync('prisma/balance.sql', 'utf8'));
  expect(rows[0]).toMatchObject({ total: '2000', answered: '2000', balanced: true });
  // Half of the events belong to replies.
  expect(await column('SELECT count(*)::int FROM message_status_events e JOIN messages m USING (provider_message_id)')).toEqual([6_000]);
  expect(await column('SELECT count(*)::int FROM conversations WHERE last_message_at IS NULL')).toEqual([0]);
  // Everybody has written, and some far more than others.
  const [fewest, most] = await column(
    'SELECT unnest(ARRAY[min(n), max(n)]::int[]) FROM (SELECT count(*) AS n FROM messages GROUP BY conversation_id) c',
  );
  expect(fewest).toBe(2);
  expect(most).toBeGreaterThan(50);
  expect(progress).toContain('large record: 4000 of 4000 messages');
});

test('when the filling is given up, then it stops before the next batch', async () => {
  const interruption = new AbortController();
  const size = { contacts: 10, messages: 20, statusEvents: 30 };
  const onProgress = (line: string) => {
    if (line.includes('messages')) interruption.abort(new Error('interrupted'));
  };
  const other = await testDatabase('large_record');
  const filling = fillRecord(other.url, { phoneNumberId: '1', size, signal: interruption.signal, onProgress });
  await expect(filling).rejects.toThrow('interrupted');
  await other.drop();
});
