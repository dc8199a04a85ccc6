import { testDatabase } from '../../test/support/engine';
import { startProxy, type TcpProxy } from '../../test/support/proxy';
import { isDatabaseReachable, openDatabase, sql } from './database';

let proxy: TcpProxy | undefined;

// Runs after a timed-out test as well: a connection that hangs forever would keep the pool from closing and the run from ending.
afterEach(async () => {
  await proxy?.close();
});

describe('the database', () => {
  test('when the network drops packets, then the connections are dropped, and new ones work', async () => {
    const database = await testDatabase('connections');
    const url = new URL(database.url);
    proxy = await startProxy(url.host);
    url.port = String(proxy.port);
    const db = openDatabase(url.href, { poolSize: 2, statementTimeoutMs: 100 });
    try {
      const runQueries = () => Promise.allSettled([db.query(sql`SELECT 1`), db.orm.workspace.count()]);
      expect((await runQueries()).map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled']);
      proxy.hang();
      expect(await isDatabaseReachable(db, 100)).toBe(false);
      expect((await runQueries()).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
      await proxy.up();
      expect((await runQueries()).map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled']);
    } finally {
      await db.close();
      await database.drop();
    }
  });

  test('when a statement runs too long, then PostgreSQL itself cancels it, with its own error code', async () => {
    const database = await testDatabase('connections');
    const db = openDatabase(database.url, { statementTimeoutMs: 100 });
    try {
      await expect(db.query(sql`SELECT pg_sleep(5)`)).rejects.toMatchObject({ code: '57014' });
    } finally {
      await db.close();
      await database.drop();
    }
  });

  test('when work in a transaction throws, or its connection breaks, then nothing of it stays, and the next one works', async () => {
    const database = await testDatabase('transactions');
    const db = openDatabase(database.url, { poolSize: 1 });
    const insert = sql`INSERT INTO workspaces (name, kapso_phone_number_id) VALUES ('w', gen_random_uuid()::text)`;
    try {
      const failing = db.transaction(async (tx) => {
        await tx.query(insert);
        throw new Error('no');
      });
      await expect(failing).rejects.toThrow('no');
      const broken = db.transaction(async (tx) => {
        await tx.query(insert);
        await tx.query(sql`SELECT pg_terminate_backend(pg_backend_pid())`);
      });
      await expect(broken).rejects.toThrow();
      expect(await db.orm.workspace.count()).toBe(0);
      expect(await db.transaction((tx) => tx.query(sql`${insert} RETURNING 1 AS one`))).toEqual([{ one: 1 }]);
      expect(await db.orm.workspace.count()).toBe(1);
    } finally {
      await db.close();
      await database.drop();
    }
  });
});
