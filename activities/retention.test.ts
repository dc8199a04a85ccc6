/** What of an archive is on the disk, and when, with the real record and a real folder. */
import { randomUUID } from 'node:crypto';
import { type FileHandle, mkdtemp, open, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { MockActivityEnvironment } from '@temporalio/testing';
import { type Database, openDatabase } from '../src/platform/database';
import { createLogger } from '../src/platform/logger';
import { type TestDatabase, testDatabase } from '../test/support/engine';
import { callWorkflowId } from '../workflows/contract';
import { createRetentionActivities } from './retention';

let database: TestDatabase;
let db: Database;
let archiveDir: string;

beforeAll(async () => {
  database = await testDatabase('archive');
  db = openDatabase(database.url);
  archiveDir = await mkdtemp(join(tmpdir(), 'parley-archive-'));
});

afterAll(async () => {
  jest.restoreAllMocks();
  await db?.close();
  await database?.drop();
  await rm(archiveDir, { recursive: true, force: true });
});

/** What stood where when something was flushed. */
interface Flush {
  of: 'file' | 'folder';
  suffix: string | undefined;
  /** Lines that can be read from the file. */
  lines: number;
  rows: number;
}

/** Notes every flush of this process, each of which is carried out. */
async function watchFlushes(): Promise<Flush[]> {
  const flushes: Flush[] = [];
  const handle = await open(archiveDir, 'r');
  const prototype: FileHandle = Object.getPrototypeOf(handle);
  await handle.close();
  const { sync } = prototype;
  jest.spyOn(prototype, 'sync').mockImplementation(async function (this: FileHandle) {
    const isFolder = (await this.stat()).isDirectory();
    const [name = ''] = await readdir(archiveDir);
    const text = gunzipSync(await readFile(join(archiveDir, name))).toString();
    await sync.call(this);
    flushes.push({
      of: isFolder ? 'folder' : 'file',
      suffix: /\.(?:part|pending|gz)$/.exec(name)?.[0],
      lines: text.split('\n').length - 1,
      rows: await db.orm.vapiCallResult.count(),
    });
  });
  return flushes;
}

test('when calls are archived, then the whole file is flushed before its name says so, and each name before rows go or are gone', async () => {
  const doneAt = new Date('2026-01-15T12:00:00Z');
  const ids = Array.from({ length: 5 }, () => randomUUID());
  await db.orm.vapiCallResult.createMany({
    data: ids.map((id) => ({ id, workflowId: callWorkflowId(id), direction: 'outbound' as const, createdAt: doneAt, doneAt })),
  });
  const metrics = { callConcluded: () => undefined };
  const activities = createRetentionActivities({ db, logger: createLogger('test', 'silent'), archiveDir, taskQueue: 'none', metrics });
  const flushes = await watchFlushes();
  const order = { month: '2026-01', cutoffAtMs: Date.parse('2026-02-01T00:00:00Z'), batchSize: 2 };
  expect(await new MockActivityEnvironment().run(activities.archiveMonth, order)).toMatchObject({ calls: 5 });
  expect(flushes).toEqual([
    { of: 'file', suffix: '.part', lines: 5, rows: 5 },
    { of: 'folder', suffix: '.pending', lines: 5, rows: 5 },
    { of: 'folder', suffix: '.gz', lines: 5, rows: 0 },
  ]);
});
