/** A PostgreSQL session outside of the pool: it can hold a lock for longer than a transaction, and receives notifications. */
import { Client, type QueryResultRow } from 'pg';
import type { Prisma } from '../../prisma/generated/client';
import { connectionOptions, type Statements } from './database';

/** Timeout for connecting, and of a statement. */
const CONNECT_TIMEOUT_MS = 3_000;
const STATEMENT_TIMEOUT_MS = 3_000;

/** PostgreSQL ends a session that is silent for longer, and releases its locks: its process is frozen, or its machine is gone. */
export const MAX_SILENCE_MS = 30_000;

export interface SessionOptions {
  /** The channel to listen to. */
  channel: string;
  onNotification(): void;
  /** Called once when the connection breaks, but not on `close`. */
  onLost(): void;
}

/** An open session. Must send a statement every `MAX_SILENCE_MS`. */
export interface DatabaseSession extends Statements {
  close(): Promise<void>;
}

/** Opens a session on `databaseUrl` and listens. @throws the driver's error if it cannot connect */
export async function openSession(databaseUrl: string, { channel, onNotification, onLost }: SessionOptions): Promise<DatabaseSession> {
  const client = new Client({
    ...connectionOptions(databaseUrl),
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    query_timeout: STATEMENT_TIMEOUT_MS,
    keepAlive: true,
    application_name: 'parley session',
  });
  let isOpen = true;
  const lose = () => {
    if (isOpen) onLost();
    isOpen = false;
  };
  client.on('error', lose);
  client.on('end', lose);
  client.on('notification', onNotification);
  const close = async () => {
    isOpen = false;
    // Without waiting for an answer that a broken network may never bring.
    client.end().catch(() => undefined);
  };
  try {
    await client.connect();
    // Not every version has each of them.
    await client.query(`SELECT set_config(name, CASE name WHEN 'idle_session_timeout' THEN '${MAX_SILENCE_MS}' ELSE '10' END, false)
      FROM pg_settings WHERE name IN ('idle_session_timeout', 'tcp_keepalives_idle', 'tcp_keepalives_interval')`);
    await client.query(`LISTEN ${client.escapeIdentifier(channel)}`);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    async query<T>({ text, values }: Prisma.Sql) {
      const { rows } = await client.query<T & QueryResultRow>({ text, values });
      return rows;
    },
    close,
  };
}
