import { testDatabase } from '../../test/support/engine';
import { startProxy, type TcpProxy } from '../../test/support/proxy';
import { isDatabaseReachable, openDatabase, sql } from './database';

let proxy: TcpProxy | undefined;

// Also when the test has run out of time: a connection that waits for ever would keep the pool from closing, and the run from ending.
afterEach(async () => {
  await proxy?.close();
});

describe('the record', () => {
  test('when the network swallows what is sent, then the connections are given up, and the next ones work', async () => {
    const database = await testDatabase('connections');
    const url = new URL(database.url);
    proxy = await startProxy(url.host);
    url.port = String(proxy.port);
    const db = openDatabase(url.href, { poolSize: 2, statementTimeoutMs: 100 });
    try {
      const ask = () => Promise.allSettled([db.query(sql`SELECT 1`), db.orm.workspace.count()]);
      expect((await ask()).map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled']);
      proxy.hang();
      expect(await isDatabaseReachable(db, 100)).toBe(false);
      expect((await ask()).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
      await proxy.up();
      expect((await ask()).map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled']);
    } finally {
      await db.close();
      await database.drop();
    }
  });

  test('when a statement waits for a lock, then PostgreSQL itself cancels it, and says so', async () => {
    const database = await testDatabase('connections');
    const db = openDatabase(database.url, { statementTimeoutMs: 100 });
    try {
      await expect(db.query(sql`SELECT pg_sleep(5)`)).rejects.toMatchObject({ code: '57014' });
    } finally {
      await db.close();
      await database.drop();
    }
  });
});
