/** Finds messages and statuses in Kapso's list that came by no webhook, and a paused webhook. */
import { Context, getClient } from '@temporalio/activity';
import type { Database } from '../src/platform/database';
import type { Logger } from '../src/platform/logger';
import type { KapsoLists } from '../src/providers/kapso/lists';
import { changeWebhook, type KapsoProject, listWebhooks, type NumberWebhook } from '../src/providers/kapso/platform';
import { mostLikelyOurs } from '../src/providers/kapso/webhook-setup';
import { raiseAlert } from '../src/record/alerts';
import { advanceRepair, findRepairedUntil, noteRepairProblem } from '../src/record/repairs';
import { repairScheduleId } from '../workflows/contract';
import { kapsoFailure, listFailure } from './kapso-failures';
import { reportProgress } from './progress';

/** What a pass does. `off`: the number has no workspace, or no key. */
export type RepairPlan =
  | { kind: 'off' }
  /** Times in milliseconds since 1970. `isPaused`: list again after `againMs`, because nothing comes by webhook. */
  | { kind: 'walk'; sinceMs: number; untilMs: number; isPaused: boolean; againMs: number };

/** What was found within a slice of time. */
export interface RepairedSlice {
  listed: number;
  messages: number;
  statuses: number;
  unreadable: number;
}

export interface RepairActivities {
  /** Checks the webhook (and may switch it on again), and reads the position. @throws ApplicationFailure `KapsoError.…` */
  planRepair(order: { phoneNumberId: string }): Promise<RepairPlan>;
  /** Hands over what the database lacks from this slice, and advances the position. @throws ApplicationFailure `KapsoError.…` */
  repairSlice(order: { phoneNumberId: string; sinceMs: number; untilMs: number }): Promise<RepairedSlice>;
  /** Raises an alert if the list could not be read for a while. */
  noteRepairProblem(order: { phoneNumberId: string; problem: string }): Promise<void>;
}

/** A number's access to Kapso. */
export interface KapsoAccount {
  project: KapsoProject;
  lists: KapsoLists;
}

/** Collects what the database lacks, page by page, then hands it to the conversations as a webhook does. */
export interface ListedCollector {
  add(rows: readonly unknown[]): Promise<void>;
  take(): Promise<Omit<RepairedSlice, 'listed'>>;
}

export interface RepairDependencies {
  db: Database;
  logger: Logger;
  /** Undefined: the number has no key. */
  kapsoAccount(phoneNumberId: string): Promise<KapsoAccount | undefined>;
  collectListed(phoneNumberId: string): ListedCollector;
  /** The address of the API, if it is known. */
  publicUrl: string | undefined;
  /** Whether a paused webhook is switched on again. */
  resumesWebhook: boolean;
  /** After this long without a whole pass, an alert is raised; milliseconds (default: 15 minutes). */
  repairAlertAfterMs?: number;
}

/** Kapso and this machine may disagree about the time, and a message may be listed later than it was written. */
const OVERLAP_MS = 5 * 60_000;
/** While the webhook is paused, this is how long a customer waits. Two requests each time. */
const PAUSED_AGAIN_MS = 20_000;
const ALERT_AFTER_MS = 15 * 60_000;

/** The activities of repair. */
export function createRepairActivities(dependencies: RepairDependencies): RepairActivities {
  const { db, logger, kapsoAccount, collectListed, repairAlertAfterMs = ALERT_AFTER_MS } = dependencies;

  return {
    async planRepair({ phoneNumberId }) {
      const repairedUntilMs = await findRepairedUntil(db, phoneNumberId);
      const account = await kapsoAccount(phoneNumberId);
      if (repairedUntilMs === undefined) await forgetSchedule(phoneNumberId);
      if (repairedUntilMs === undefined || account === undefined) return { kind: 'off' };
      // Before the list is read: what comes after this is in the list, or comes by webhook.
      const isPaused = await checkWebhook(phoneNumberId, account.project, dependencies);
      return { kind: 'walk', sinceMs: repairedUntilMs - OVERLAP_MS, untilMs: Date.now(), isPaused, againMs: PAUSED_AGAIN_MS };
    },

    async repairSlice({ phoneNumberId, sinceMs, untilMs }) {
      const account = await kapsoAccount(phoneNumberId);
      if (account === undefined) return { listed: 0, messages: 0, statuses: 0, unreadable: 0 };
      const gaps = collectListed(phoneNumberId);
      let listed = 0;
      for (let after: string | undefined, isLast = false; !isLast; isLast = after === undefined) {
        const query = { phoneNumberId, sinceMs, untilMs, ...(after === undefined ? {} : { after }) };
        const page = await account.lists.messages(query, Context.current().cancellationSignal).catch((error: unknown) => {
          throw listFailure(error);
        });
        await gaps.add(page.rows);
        listed += page.rows.length;
        after = page.next;
        reportProgress({ listed });
      }
      const taken = await gaps.take();
      await advanceRepair(db, phoneNumberId, untilMs);
      if (taken.messages + taken.statuses + taken.unreadable > 0)
        logger.warn({ phoneNumberId, ...taken }, "found in Kapso's list what no webhook had brought");
      return { listed, ...taken };
    },

    async noteRepairProblem({ phoneNumberId, problem }) {
      logger.warn({ phoneNumberId, problem }, "Kapso's list was not read to its end; the next pass goes on from there");
      await noteRepairProblem(db, { phoneNumberId, problem, alertAfterMs: repairAlertAfterMs });
    },
  };
}

/** The workspace is gone. */
async function forgetSchedule(phoneNumberId: string): Promise<void> {
  await getClient()
    .schedule.getHandle(repairScheduleId(phoneNumberId))
    .delete()
    .catch(() => undefined);
}

/** Reports paused webhooks, and switches ours on again if that is wanted. Returns whether ours is still paused. */
async function checkWebhook(
  phoneNumberId: string,
  project: KapsoProject,
  { db, logger, publicUrl, resumesWebhook }: RepairDependencies,
): Promise<boolean> {
  const listed = await listWebhooks(project, phoneNumberId);
  if (listed.kind !== 'rows') throw kapsoFailure(listed);
  const own = mostLikelyOurs(listed.rows, publicUrl);
  let isOursPaused = false;
  for (const webhook of listed.rows.filter(({ isActive }) => !isActive)) {
    const isResumed = webhook === own && resumesWebhook && (await resume(webhook));
    await raiseAlert(db, pausedAlert(webhook, isResumed));
    logger.warn({ phoneNumberId, webhookId: webhook.id, isResumed }, 'Kapso has paused a webhook');
    isOursPaused ||= webhook === own && !isResumed;
  }
  return isOursPaused;

  async function resume({ id }: NumberWebhook): Promise<boolean> {
    if (id === undefined) return false;
    const changed = await changeWebhook(project, phoneNumberId, id, { isActive: true });
    if (changed.kind !== 'done') throw kapsoFailure(changed);
    return true;
  }
}

function pausedAlert({ id = 'without an id' }: NumberWebhook, isResumed: boolean): { cause: string; text: string; subject: string } {
  const done = 'it was switched on again, and what it would have brought is read from the list; see why its deliveries failed';
  const todo =
    'Kapso delivers no messages to it until you activate it again in its dashboard or with npm run setup; see why its deliveries failed';
  return { cause: `webhook paused: ${id}`, text: `webhook paused: ${isResumed ? done : todo}`, subject: `webhook ${id}` };
}
