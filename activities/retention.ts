/**
 * What happens to calls that are old enough: they go to a file, or away. Rows are deleted only when a complete file with
 * them stands on the disk. Every step may be cut off at any point and run again.
 *
 * A file has one of three names: `….part` while it is written (of no use afterwards), `….pending` when it is complete and
 * its rows are still to be deleted, and its final name when they are. Whoever finds a pending file deletes its rows first:
 * so no call is lost, and none stands in two files.
 */
import { randomBytes } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import { type Database, sql } from '../src/platform/database';
import type { DueMonth } from '../workflows/contract';
import { createOrphanActivities, type OrphanActivities, type OrphanDependencies } from './orphans';
import { progress } from './progress';

const PART = '.part';
const PENDING = '.pending';

/** A part that was not touched for this long is nobody's: a writer touches its own with every batch. */
const FORGOTTEN_PART_MS = 24 * 60 * 60_000;

const ONLY_OWNER_FILE = 0o600;
const ONLY_OWNER_FOLDER = 0o700;

/** The calls of `month` (`2026-08`) that were done before the cutoff. */
export interface MonthOrder {
  month: string;
  cutoffAtMs: number;
  batchSize: number;
}

export interface Archived {
  /** None when nothing was due; more than one when an earlier attempt was cut off. */
  files: string[];
  calls: number;
}

export interface RetentionActivities extends OrphanActivities {
  /** What is due, by month, oldest first; and where files would go. */
  findDueCalls(order: { cutoffAtMs: number }): Promise<{ months: DueMonth[]; folder: string }>;
  /** Deletes the rows of files that an earlier run completed and did not finish with. */
  settleArchives(): Promise<Archived>;
  /** Writes the month's calls with their events to one file, then deletes them. */
  archiveMonth(order: MonthOrder): Promise<Archived>;
  /** Deletes the month's calls with their events. */
  deleteMonth(order: MonthOrder): Promise<{ calls: number }>;
}

interface Dependencies extends OrphanDependencies {
  /** Absolute. */
  archiveDir: string;
}

/** The activities of retention; files lie in `archiveDir`. */
export function createRetentionActivities(dependencies: Dependencies): RetentionActivities {
  const { db, logger, archiveDir } = dependencies;
  return {
    ...createOrphanActivities(dependencies),

    async findDueCalls({ cutoffAtMs }) {
      return { months: await dueMonths(db, cutoffAtMs), folder: archiveDir };
    },

    async settleArchives() {
      await removeForgottenParts(archiveDir);
      return await settleAll(dependencies);
    },

    async archiveMonth(order) {
      // What an earlier attempt completed is not written again.
      const earlier = await settleAll(dependencies);
      await writeMonth(dependencies, order);
      const now = await settleAll(dependencies);
      return { files: [...earlier.files, ...now.files], calls: earlier.calls + now.calls };
    },

    async deleteMonth({ month, cutoffAtMs, batchSize }) {
      let calls = 0;
      for await (const rows of dueRows(db, { month, cutoffAtMs, batchSize })) {
        calls += await deleteCalls(db, rows);
        progress({ calls });
      }
      logger.info({ month, calls }, 'calls deleted');
      return { calls };
    },
  };
}

async function dueMonths(db: Database, cutoffAtMs: number): Promise<DueMonth[]> {
  const cutoff = new Date(cutoffAtMs);
  const rows = await db.query<{ month: string; calls: number; oldest: Date; newest: Date }>(sql`
    SELECT to_char(done_at AT TIME ZONE 'UTC', 'YYYY-MM') AS month, count(*)::int AS calls, min(done_at) AS oldest, max(done_at) AS newest
    FROM vapi_call_results WHERE done_at < ${cutoff} AND created_at < ${cutoff}
    GROUP BY 1 ORDER BY 1`);
  return rows.map(({ month, calls, oldest, newest }) => ({
    month,
    calls,
    oldestAtMs: oldest.getTime(),
    newestAtMs: newest.getTime(),
  }));
}

interface DueRow {
  id: string;
  /** As PostgreSQL writes it; a row that was changed since is not deleted. */
  updatedAt: string;
  createdAt: string;
  /** The row and its events, as JSON. */
  line: string;
}

/** The month's due calls in batches, in the order in which they were created, which an index has. */
async function* dueRows(db: Database, { month, cutoffAtMs, batchSize }: MonthOrder): AsyncGenerator<DueRow[]> {
  const from = new Date(`${month}-01T00:00:00Z`);
  const until = new Date(Math.min(cutoffAtMs, Date.UTC(from.getUTCFullYear(), from.getUTCMonth() + 1)));
  let after = { createdAt: '-infinity', id: '00000000-0000-0000-0000-000000000000' };
  for (;;) {
    const rows = await db.query<DueRow>(sql`
      SELECT c.id, c.updated_at::text AS "updatedAt", c.created_at::text AS "createdAt",
        jsonb_build_object('call', to_jsonb(c), 'events', COALESCE((
          SELECT jsonb_agg(to_jsonb(e) ORDER BY e.created_at, e.id) FROM vapi_call_events e
          WHERE e.provider_call_id = ANY(array_append(c.former_provider_call_ids, c.provider_call_id))
        ), '[]'::jsonb))::text AS line
      FROM vapi_call_results c
      WHERE c.done_at >= ${from} AND c.done_at < ${until} AND c.created_at < ${until}
        AND (c.created_at, c.id) > (${after.createdAt}::timestamptz, ${after.id}::uuid)
      ORDER BY c.created_at, c.id LIMIT ${batchSize}`);
    const last = rows.at(-1);
    if (last === undefined) return;
    yield rows;
    after = last;
  }
}

/** Deletes the calls that were not changed since they were read, with their events. Returns their number. */
async function deleteCalls(db: Database, rows: readonly { id: string; updatedAt: string }[]): Promise<number> {
  const input = JSON.stringify(rows.map(({ id, updatedAt }) => ({ id, updated_at: updatedAt })));
  const [deleted] = await db.query<{ calls: number }>(sql`
    WITH gone AS (
      DELETE FROM vapi_call_results c USING jsonb_to_recordset(${input}::jsonb) AS x(id uuid, updated_at timestamptz)
      WHERE c.id = x.id AND c.updated_at = x.updated_at
      RETURNING c.provider_call_id, c.former_provider_call_ids
    ), events AS (
      DELETE FROM vapi_call_events e USING gone g
      WHERE e.provider_call_id = ANY(array_append(g.former_provider_call_ids, g.provider_call_id))
    )
    SELECT count(*)::int AS calls FROM gone`);
  return deleted?.calls ?? 0;
}

/** Writes the month's file, which is pending then; none when nothing is due. */
async function writeMonth({ db, logger, archiveDir }: Dependencies, order: MonthOrder): Promise<void> {
  await mkdir(archiveDir, { recursive: true, mode: ONLY_OWNER_FOLDER });
  const now = new Date().toISOString().replace(/[-:]|\.\d+/g, '');
  // The random part: two attempts that overlap must not write into each other's file.
  const file = join(archiveDir, `calls-${order.month}.${now}-${randomBytes(3).toString('hex')}.jsonl.gz`);
  const written = { calls: 0 };
  const disk = createWriteStream(`${file}${PART}`, { flags: 'wx', mode: ONLY_OWNER_FILE });
  await pipeline(Readable.from(linesOf(db, order, written)), createGzip(), disk);
  if (written.calls === 0) {
    await rm(`${file}${PART}`);
    return;
  }
  await flush(`${file}${PART}`);
  progress(written);
  await renameDurably(archiveDir, `${file}${PART}`, `${file}${PENDING}`);
  logger.info({ month: order.month, calls: written.calls, file }, 'calls archived');
}

/** `row` names the state that was written, so that only this state is deleted. */
async function* linesOf(db: Database, order: MonthOrder, written: { calls: number }): AsyncGenerator<string> {
  for await (const rows of dueRows(db, order)) {
    yield rows.map(({ id, updatedAt, line }) => `{"id":"${id}","updatedAt":"${updatedAt}",${line.slice(1)}\n`).join('');
    written.calls += rows.length;
    progress(written);
  }
}

async function settleAll(dependencies: Dependencies): Promise<Archived> {
  const pending = (await filesIn(dependencies.archiveDir)).filter((name) => name.endsWith(PENDING));
  const settled: Archived = { files: [], calls: 0 };
  for (const name of pending) {
    const path = join(dependencies.archiveDir, name);
    settled.calls += await settle(dependencies, path);
    settled.files.push(finalName(path));
  }
  return settled;
}

function finalName(pending: string): string {
  return pending.slice(0, -PENDING.length);
}

async function removeForgottenParts(archiveDir: string): Promise<void> {
  for (const name of await filesIn(archiveDir)) {
    const path = join(archiveDir, name);
    if (name.endsWith(PART) && Date.now() - (await stat(path)).mtimeMs > FORGOTTEN_PART_MS) await rm(path, { force: true });
  }
}

async function filesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** Rows of one statement while a file is settled. */
const SETTLE_BATCH = 500;

/** Deletes the rows that stand in a pending file, by reading it to its end, and gives it its final name. */
async function settle({ db, logger, archiveDir }: Dependencies, pending: string): Promise<number> {
  let calls = 0;
  let batch: { id: string; updatedAt: string }[] = [];
  const deleteBatch = async () => {
    calls += await deleteCalls(db, batch);
    batch = [];
    progress({ calls });
  };
  for await (const row of archivedRows(pending)) {
    if (batch.push(row) >= SETTLE_BATCH) await deleteBatch();
  }
  if (batch.length > 0) await deleteBatch();
  await renameDurably(archiveDir, pending, finalName(pending));
  logger.info({ calls, file: finalName(pending) }, 'archived calls deleted from the record');
  return calls;
}

const ARCHIVED_ROW = /^\{"id":"([0-9a-f-]{36})","updatedAt":"([^"]+)",/;

/** @throws when the file is broken: then nothing after the broken place is deleted */
async function* archivedRows(file: string): AsyncGenerator<{ id: string; updatedAt: string }> {
  const source = createReadStream(file);
  const text = source.pipe(createGunzip());
  source.once('error', (error) => text.destroy(error));
  for await (const line of createInterface({ input: text, crlfDelay: Number.POSITIVE_INFINITY })) {
    const [, id, updatedAt] = ARCHIVED_ROW.exec(line) ?? [];
    if (id === undefined || updatedAt === undefined) throw new Error('the archive has a line that is no call');
    yield { id, updatedAt };
  }
}

/** The new name is on the disk when this returns. */
async function renameDurably(folder: string, from: string, to: string): Promise<void> {
  await rename(from, to);
  await flush(folder);
}

/** What was written to a file, or the names in a folder, are on the disk when this returns. */
async function flush(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
