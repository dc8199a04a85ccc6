/** Fills a record with the past of a busy business, in set-based SQL: rows that the load's statements have to find their way around. */
import { Client } from 'pg';

/** How many rows there are. */
export interface RecordSize {
  contacts: number;
  messages: number;
  statusEvents: number;
}

/** The tables that grow with the business. */
const TABLES = ['contacts', 'contact_aliases', 'conversations', 'messages', 'message_status_events'];

/** Rows in one INSERT: often enough to show progress. */
const BATCH = 250_000;

interface SecondaryIndex {
  name: string;
  definition: string;
}

/**
 * Fills a migrated, empty database for the business number. Messages are turns of a question and its reply, a third of a year long; every
 * contact has one turn at least, and a few have hundreds. Half of the status events belong to replies, the others to messages that the
 * business sent by other means. Leaves the tables vacuumed and analyzed, as a running database is.
 */
export async function fillRecord(
  databaseUrl: string,
  options: { phoneNumberId: string; size: RecordSize; signal: AbortSignal; onProgress: (line: string) => void },
): Promise<void> {
  const { phoneNumberId, signal, onProgress } = options;
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    // The rows are consistent by construction, so that checking each foreign key would only take time.
    await client.query(`SET session_replication_role = replica; SET synchronous_commit = off; SET maintenance_work_mem = '256MB'`);
    const indexes = await dropIndexes(client);
    const fill = new Fill(client, options);
    await fill.people(phoneNumberId);
    await fill.messages();
    await fill.statusEvents();
    await fill.conversationStates();
    for (const { name, definition } of indexes) {
      signal.throwIfAborted();
      onProgress(`large record: index ${name}`);
      await client.query(definition);
    }
    onProgress('large record: vacuum and analyze');
    await client.query('VACUUM (ANALYZE)');
    await client.query('CHECKPOINT');
  } finally {
    await client.end();
  }
}

/** How often each of the tables was read from its beginning to its end since the database was made. */
export async function countTableScans(databaseUrl: string): Promise<Record<string, number>> {
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    const { rows } = await client.query<{ name: string; scans: number }>(
      'SELECT relname AS name, seq_scan::int AS scans FROM pg_stat_user_tables WHERE relname = ANY($1) ORDER BY 1',
      [TABLES],
    );
    return Object.fromEntries(rows.map(({ name, scans }) => [name, scans]));
  } finally {
    await client.end();
  }
}

/** Indexes are built much faster after the rows than with them. Primary keys stay. */
async function dropIndexes(client: Client): Promise<SecondaryIndex[]> {
  const { rows } = await client.query<SecondaryIndex>(
    `SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS definition
     FROM pg_index i WHERE i.indrelid = ANY($1::regclass[]) AND NOT i.indisprimary ORDER BY 1`,
    [TABLES],
  );
  for (const { name } of rows) await client.query(`DROP INDEX ${name}`);
  return rows;
}

/** The id of row number `number` of a table, in SQL. */
const idOf = (table: string, number: string) => `md5('${table} ' || ${number})::uuid`;

/** WhatsApp's id of message `number`, as long as the real ones. */
const wamidOf = (number: string) => `'wamid.HBgL' || md5('wamid ' || ${number}) || substr(md5('rest ' || ${number}), 1, 16)`;

/** The person who talks in turn `turn`: first everybody once, then some people much more than others. */
const personIn = (turn: string) => `CASE WHEN ${turn} < $1 THEN ${turn}
  ELSE floor($1 * power(('x' || substr(md5('turn ' || ${turn}), 1, 7))::bit(28)::int / 268435456.0, 2))::int END`;

class Fill {
  readonly #client: Client;
  readonly #size: RecordSize;
  readonly #signal: AbortSignal;
  readonly #onProgress: (line: string) => void;

  constructor(client: Client, { size, signal, onProgress }: { size: RecordSize; signal: AbortSignal; onProgress: (line: string) => void }) {
    this.#client = client;
    this.#size = size;
    this.#signal = signal;
    this.#onProgress = onProgress;
  }

  async people(phoneNumberId: string): Promise<void> {
    const { contacts } = this.#size;
    this.#onProgress(`large record: ${contacts} contacts`);
    await this.#client.query('INSERT INTO workspaces (name, kapso_phone_number_id) VALUES ($1, $2)', ['First workspace', phoneNumberId]);
    await this.#client.query(
      `INSERT INTO contacts (id, workspace_id, contact_key, phone, name, created_at)
       SELECT ${idOf('contact', 'i')}, w.id, substr(md5('key ' || i), 1, 24), (1600000000 + i)::text, 'Customer ' || i, now() - interval '121 days'
       FROM generate_series(0, $1::int - 1) i, workspaces w`,
      [contacts],
    );
    await this.#client.query(
      `INSERT INTO contact_aliases (kind, value, workspace_id, contact_id, stated_at)
       SELECT 'phone', phone, workspace_id, id, created_at FROM contacts`,
    );
    await this.#client.query(
      `INSERT INTO conversations (id, workspace_id, contact_id, workflow_id, created_at)
       SELECT ${idOf('conversation', 'i')}, w.id, ${idOf('contact', 'i')}, 'conversation-' || w.kapso_phone_number_id || '-' || substr(md5('key ' || i), 1, 24),
         now() - interval '121 days'
       FROM generate_series(0, $1::int - 1) i, workspaces w`,
      [contacts],
    );
  }

  async messages(): Promise<void> {
    const { contacts, messages } = this.#size;
    const turns = Math.ceil(messages / 2);
    await this.#inBatches('messages', messages, (from, until) =>
      this.#client.query(
        `INSERT INTO messages (id, workspace_id, conversation_id, workflow_id, direction, kind, text, provider_message_id, status, outcome,
           reply_to_id, turn_id, provider, model, attempts, latency_ms, prompt_tokens, completion_tokens, claimed_at, send_attempts,
           occurred_at, created_at)
         SELECT ${idOf('message', 'i')}, w.id, c.id, CASE WHEN asks THEN c.workflow_id END,
           CASE WHEN asks THEN 'inbound' ELSE 'outbound' END::message_direction, 'text',
           CASE WHEN asks THEN 'Do you have number ' || i || ' in blue, and what does it cost?'
             ELSE 'Yes, number ' || i - 1 || ' comes in blue. It costs ' || i % 90 + 10 || ' with delivery within three days.' END,
           ${wamidOf('i')}, CASE WHEN asks THEN 'received' ELSE 'read' END::message_status,
           CASE WHEN asks THEN 'answered'::message_outcome END, CASE WHEN NOT asks THEN ${idOf('message', '(i - 1)')} END,
           CASE WHEN asks THEN ${idOf('message', 'i')} END, CASE WHEN NOT asks THEN 'sandbox' END, CASE WHEN NOT asks THEN 'sandbox-model' END,
           CASE WHEN NOT asks THEN 1 END, CASE WHEN NOT asks THEN 900 END, CASE WHEN NOT asks THEN 300 END, CASE WHEN NOT asks THEN 30 END,
           CASE WHEN NOT asks THEN at END, CASE WHEN asks THEN 0 ELSE 1 END, at, at
         FROM (SELECT i, i % 2 = 0 AS asks, ${personIn('(i / 2)')} AS person,
             now() - interval '120 days' * (1 - (i / 2)::float8 / $2) AS at
           FROM generate_series($3::int, $4::int - 1) i) n
         JOIN conversations c ON c.id = ${idOf('conversation', 'n.person')}, workspaces w
         ORDER BY i`,
        [contacts, turns, from, until],
      ),
    );
  }

  async statusEvents(): Promise<void> {
    const replies = Math.floor(this.#size.messages / 2);
    await this.#inBatches('status events', this.#size.statusEvents, (from, until) =>
      this.#client.query(
        `INSERT INTO message_status_events (provider_message_id, status, occurred_at, created_at)
         SELECT CASE WHEN sent < $1 THEN ${wamidOf('(2 * sent + 1)')} ELSE ${wamidOf("('other ' || sent)")} END,
           (ARRAY['sent', 'delivered', 'read'])[i % 3 + 1], at, at
         FROM (SELECT i, i / 3 AS sent, now() - interval '120 days' * (1 - i::float8 / $2) AS at FROM generate_series($3::int, $4::int - 1) i) n`,
        [replies, this.#size.statusEvents, from, until],
      ),
    );
  }

  /** What a person sees of each in the list; some wait for a person, or are answered by one. */
  async conversationStates(): Promise<void> {
    this.#onProgress('large record: last messages of the conversations');
    await this.#client.query(
      `UPDATE conversations c SET last_message_at = m.at, last_message_preview = left(m.text, 100), updated_at = m.at,
         mode = CASE m.chance WHEN 0 THEN 'paused' WHEN 1 THEN 'human' WHEN 2 THEN 'human' ELSE 'ai' END::conversation_mode,
         needs_attention = m.chance IN (2, 3), unread_count = CASE WHEN m.chance IN (2, 3) THEN 1 ELSE 0 END
       FROM (SELECT DISTINCT ON (conversation_id) conversation_id, created_at AS at, text,
           ('x' || substr(md5(conversation_id::text), 1, 7))::bit(28)::int % 200 AS chance
         FROM messages ORDER BY conversation_id, position DESC) m
       WHERE c.id = m.conversation_id`,
    );
  }

  async #inBatches(what: string, count: number, insert: (from: number, until: number) => Promise<unknown>): Promise<void> {
    for (let from = 0; from < count; from += BATCH) {
      this.#signal.throwIfAborted();
      const until = Math.min(count, from + BATCH);
      await insert(from, until);
      this.#onProgress(`large record: ${until} of ${count} ${what}`);
    }
  }
}
