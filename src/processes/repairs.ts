/** Maintains a repair schedule per business number, and starts a pass when a process starts. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from '@temporalio/client';
import type { Settings } from '../platform/config';
import type { Database } from '../platform/database';
import type { Logger } from '../platform/logger';
import { listNumberIds } from '../record/repairs';
import { ensureRepairSchedule, triggerRepair } from './schedules';

/** How soon a new workspace is noticed. */
const LOOK_EVERY_MS = 60_000;

interface Parts {
  db: Database;
  client: Client;
  logger: Logger;
}

/** Creates the schedules of all numbers, and of those added later, until `signal` aborts. */
export function startRepairs(parts: Parts & { settings: Settings; signal: AbortSignal }): void {
  void keepSchedules(parts);
}

async function keepSchedules({ db, client, settings, logger, signal }: Parts & { settings: Settings; signal: AbortSignal }): Promise<void> {
  const ensured = new Set<string>();
  while (!signal.aborted) {
    try {
      const phoneNumberIds = await listNumberIds(db);
      // The schedule of a deleted workspace is gone, and its number may get another workspace.
      for (const phoneNumberId of ensured) if (!phoneNumberIds.includes(phoneNumberId)) ensured.delete(phoneNumberId);
      for (const phoneNumberId of phoneNumberIds) {
        if (ensured.has(phoneNumberId)) continue;
        await ensureRepairSchedule(client, phoneNumberId, settings, logger);
        ensured.add(phoneNumberId);
      }
    } catch (error) {
      if (!signal.aborted) logger.warn({ error }, 'the schedules of repair could not be made; trying again');
    }
    await sleep(LOOK_EVERY_MS, undefined, { signal, ref: false }).catch(() => undefined);
  }
}

/** Starts a pass for each number that has a schedule: webhooks may have been lost while this process was away. */
export async function triggerRepairs({ db, client, logger }: Parts): Promise<void> {
  try {
    for (const phoneNumberId of await listNumberIds(db)) await triggerRepair(client, phoneNumberId);
  } catch (error) {
    logger.warn({ error }, 'repair was not started; its schedule will');
  }
}
