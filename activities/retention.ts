/**
 * Archives old calls to files, or just deletes them. Archived rows are deleted only after a complete file with them is on disk. Every step
 * can be interrupted at any point and run again.
 *
 * A file is named `….part` while it is being written and `….pending` when it is complete but its rows are not deleted yet; then it gets
 * its final name. A run first deletes the rows of pending files, so no call is lost and none is archived twice.
 */
import { randomBytes } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import type { Database } from '../src/platform/database';
import { deleteCalls, findDueMonths, type MonthOrder, readDueCalls } from '../src/record/call-retention';
import { countOldDeadLetters, deleteOldDeadLetters } from '../src/record/dead-letters';
import { countExpired, deleteExpired } from '../src/record/expiry';
import type { DueMonth, ExpiringRows } from '../workflows/contract';
import { createOrphanActivities, type OrphanActivities, type OrphanDependencies } from './orphans';
import { reportProgress } from './progress';

const PART = '.part';
const PENDING = '.pending';

/** A part file not modified for this long was abandoned: a writer modifies its file with every batch. */
const FORGOTTEN_PART_MS = 24 * 60 * 60_000;

const ONLY_OWNER_FILE = 0o600;
const ONLY_OWNER_FOLDER = 0o700;

export interface Archived {
  /** Empty if nothing was due; several if an earlier attempt was interrupted. */
  files: string[];
  calls: number;
}

export interface RetentionActivities extends OrphanActivities {
  /** The due calls by month, oldest first, and the folder for the files. */
  findDueCalls(order: { cutoffAtMs: number }): Promise<{ months: DueMonth[]; folder: string }>;
  /** Finishes the files that an earlier run left pending. */
  settleArchives(): Promise<Archived>;
  /** Writes the month's calls and their events to a file, then deletes them. */
  archiveMonth(order: MonthOrder): Promise<Archived>;
  /** Deletes the month's calls and their events. */
  deleteMonth(order: MonthOrder): Promise<{ calls: number }>;
  /** Deletes dead letters that were last seen before. */
  deleteDeadLetters(order: { beforeMs: number; batchSize: number }): Promise<{ letters: number }>;
  /** How many letters `deleteDeadLetters` would delete. */
  countDeadLetters(order: { beforeMs: number; batchSize: number }): Promise<{ letters: number }>;
  /** Deletes rows of this kind that were written before `beforeMs`. */
  deleteExpired(order: ExpiryOrder): Promise<{ rows: number }>;
  /** How many rows `deleteExpired` would delete. */
  countExpired(order: ExpiryOrder): Promise<{ rows: number }>;
}

/** Rows written before `beforeMs` (milliseconds since 1970), deleted `batchSize` per statement. */
export interface ExpiryOrder {
  kind: ExpiringRows;
  beforeMs: number;
  batchSize: number;
}

interface Dependencies extends OrphanDependencies {
  /** Folder for the files; absolute path. */
  archiveDir: string;
}

/** The activities of retention. */
export function createRetentionActivities(dependencies: Dependencies): RetentionActivities {
  const { db, logger, archiveDir } = dependencies;
  return {
    ...createOrphanActivities(dependencies),

    async findDueCalls({ cutoffAtMs }) {
      return { months: await findDueMonths(db, cutoffAtMs), folder: archiveDir };
    },

    async settleArchives() {
      await removeForgottenParts(archiveDir);
      return await finishPendingFiles(dependencies);
    },

    async archiveMonth(order) {
      // Otherwise the calls in a file completed by an earlier attempt would be written again.
      const earlier = await finishPendingFiles(dependencies);
      await writeMonth(dependencies, order);
      const now = await finishPendingFiles(dependencies);
      return { files: [...earlier.files, ...now.files], calls: earlier.calls + now.calls };
    },

    async deleteMonth({ month, cutoffAtMs, batchSize }) {
      let calls = 0;
      for await (const due of readDueCalls(db, { month, cutoffAtMs, batchSize })) {
        calls += await deleteCalls(db, due);
        reportProgress({ calls });
      }
      logger.info({ month, calls }, 'calls deleted');
      return { calls };
    },

    async deleteDeadLetters({ beforeMs, batchSize }) {
      let letters = 0;
      for (let deleted = batchSize; deleted === batchSize; letters += deleted) {
        deleted = await deleteOldDeadLetters(db, beforeMs, batchSize);
        reportProgress({ letters: letters + deleted });
      }
      return { letters };
    },

    async countDeadLetters({ beforeMs }) {
      return { letters: await countOldDeadLetters(db, beforeMs) };
    },

    async deleteExpired({ kind, beforeMs, batchSize }) {
      let rows = 0;
      for (let deleted = batchSize; deleted === batchSize; rows += deleted) {
        deleted = await deleteExpired(db, kind, beforeMs, batchSize);
        reportProgress({ rows: rows + deleted });
      }
      logger.info({ kind, rows }, 'old rows deleted');
      return { rows };
    },

    async countExpired({ kind, beforeMs }) {
      return { rows: await countExpired(db, kind, beforeMs) };
    },
  };
}

/** Writes the month's file and leaves it pending; writes none if nothing is due. */
async function writeMonth({ db, logger, archiveDir }: Dependencies, order: MonthOrder): Promise<void> {
  await mkdir(archiveDir, { recursive: true, mode: ONLY_OWNER_FOLDER });
  const now = new Date().toISOString().replace(/[-:]|\.\d+/g, '');
  // Random, because two overlapping attempts must not write to the same file.
  const file = join(archiveDir, `calls-${order.month}.${now}-${randomBytes(3).toString('hex')}.jsonl.gz`);
  const written = { calls: 0 };
  const disk = createWriteStream(`${file}${PART}`, { flags: 'wx', mode: ONLY_OWNER_FILE });
  await pipeline(Readable.from(archiveLines(db, order, written)), createGzip(), disk);
  if (written.calls === 0) {
    await rm(`${file}${PART}`);
    return;
  }
  await syncToDisk(`${file}${PART}`);
  reportProgress(written);
  await renameDurably(archiveDir, `${file}${PART}`, `${file}${PENDING}`);
  logger.info({ month: order.month, calls: written.calls, file }, 'calls archived');
}

/** Each line begins with the id and version of a row, so that only this version is deleted. Counts in `written`. */
async function* archiveLines(db: Database, order: MonthOrder, written: { calls: number }): AsyncGenerator<string> {
  for await (const calls of readDueCalls(db, order)) {
    yield calls.map(({ id, updatedAt, json }) => `{"id":"${id}","updatedAt":"${updatedAt}",${json.slice(1)}\n`).join('');
    written.calls += calls.length;
    reportProgress(written);
  }
}

async function finishPendingFiles(dependencies: Dependencies): Promise<Archived> {
  const pending = (await filesIn(dependencies.archiveDir)).filter((name) => name.endsWith(PENDING));
  const finished: Archived = { files: [], calls: 0 };
  for (const name of pending) {
    const path = join(dependencies.archiveDir, name);
    finished.calls += await finishPendingFile(dependencies, path);
    finished.files.push(finalName(path));
  }
  return finished;
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

/** Rows that one statement deletes. */
const DELETE_BATCH = 500;

/** Reads a pending file, deletes the rows that it names, and gives it its final name. Returns how many were deleted. */
async function finishPendingFile({ db, logger, archiveDir }: Dependencies, pending: string): Promise<number> {
  let calls = 0;
  let batch: { id: string; updatedAt: string }[] = [];
  const deleteBatch = async () => {
    calls += await deleteCalls(db, batch);
    batch = [];
    reportProgress({ calls });
  };
  for await (const row of readArchivedRows(pending)) {
    if (batch.push(row) >= DELETE_BATCH) await deleteBatch();
  }
  if (batch.length > 0) await deleteBatch();
  await renameDurably(archiveDir, pending, finalName(pending));
  logger.info({ calls, file: finalName(pending) }, 'archived calls deleted from the database');
  return calls;
}

const ARCHIVED_ROW = /^\{"id":"([0-9a-f-]{36})","updatedAt":"([^"]+)",/;

/** @throws if the file is damaged, so that no later row is deleted */
async function* readArchivedRows(file: string): AsyncGenerator<{ id: string; updatedAt: string }> {
  const source = createReadStream(file);
  const text = source.pipe(createGunzip());
  source.once('error', (error) => text.destroy(error));
  for await (const line of createInterface({ input: text, crlfDelay: Number.POSITIVE_INFINITY })) {
    const [, id, updatedAt] = ARCHIVED_ROW.exec(line) ?? [];
    if (id === undefined || updatedAt === undefined) throw new Error('the archive has a line that is not a call');
    yield { id, updatedAt };
  }
}

/** Renames a file and waits until the new name is on disk. */
async function renameDurably(folder: string, from: string, to: string): Promise<void> {
  await rename(from, to);
  await syncToDisk(folder);
}

/** Waits until the content of a file, or the entries of a folder, are on disk. */
async function syncToDisk(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
