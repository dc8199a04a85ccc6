/**
 * Stores what WhatsApp reports about replies. These are facts about rows, not decisions, so they are written directly, and signalled to a
 * workflow only if one is waiting for them. Each reply has three, in separate webhooks: those that arrive together are written together,
 * which costs PostgreSQL a fraction.
 */
import { WorkflowNotFoundError } from '@temporalio/client';
import { type ReportedStatus, sendReported } from '../../workflows/contract';
import type { Database } from '../platform/database';
import { fromRecord, isDatabaseAway } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import type { StatusEvent } from '../providers/kapso/events';
import { joinEarlyReports, keepReports, noteSentTime, raiseReply } from '../record/replies';
import type { WorkflowSignaller } from './signaller';

/** A status with the id of its business number. */
export type NumberedStatus = StatusEvent & { phoneNumberId: string };

export interface StatusKeeper {
  /**
   * Resolves once the statuses are in the database. Rejects with the database's error; then none of them counts as stored. Workflows
   * that wait for one are signalled until `deadlineMs` (milliseconds since 1970).
   */
  keep(statuses: readonly NumberedStatus[], deadlineMs: number): Promise<void>;
}

export interface StatusDependencies {
  db: Database;
  signaller: Pick<WorkflowSignaller, 'tellRunning'>;
  logger: Logger;
}

/** How long statuses wait for others. Kapso waits 10 s for the response, but holds back the conversation's next webhook until then. */
const GATHER_MS = 100;
/** This many webhooks are written without further waiting. */
const MOST_TOGETHER = 100;

interface Delivery {
  statuses: readonly NumberedStatus[];
  deadlineMs: number;
  done(): void;
  failed(error: unknown): void;
}

/** One per process. */
export function createStatusKeeper(dependencies: StatusDependencies): StatusKeeper {
  let gathered: Delivery[] = [];
  let timer: NodeJS.Timeout | undefined;

  function flush(): void {
    clearTimeout(timer);
    timer = undefined;
    const together = gathered;
    gathered = [];
    void keepTogether(together);
  }

  /** Writes all of them in one statement; afterwards each webhook continues on its own. */
  async function keepTogether(deliveries: Delivery[]): Promise<void> {
    let settled: Set<string>;
    try {
      const reports = deliveries.flatMap(({ statuses }) => statuses);
      settled = await fromRecord(keepReports(dependencies.db, reports));
    } catch (error) {
      // If the database rejects one of them, the others must not fail with it.
      if (deliveries.length > 1 && !isDatabaseAway(error)) for (const delivery of deliveries) void keepTogether([delivery]);
      else for (const { failed } of deliveries) failed(error);
      return;
    }
    for (const delivery of deliveries) applyStatuses(delivery, settled, dependencies).then(delivery.done, delivery.failed);
  }

  return {
    keep: (statuses, deadlineMs) =>
      new Promise((done, failed) => {
        gathered.push({ statuses, deadlineMs, done, failed });
        if (gathered.length >= MOST_TOGETHER) flush();
        else timer ??= setTimeout(flush, GATHER_MS);
      }),
  };
}

const HEIGHT: Record<ReportedStatus, number> = { sent: 1, delivered: 2, read: 3, failed: 4 };

/** Handles what the common statement left open: replies whose provider id is not in the database yet, and failures. */
async function applyStatuses(
  { statuses, deadlineMs }: Delivery,
  settled: ReadonlySet<string>,
  dependencies: StatusDependencies,
): Promise<void> {
  const kept = statuses.map(({ correlationId, status }) => ({ messageId: ownId(correlationId), status }));
  dependencies.logger.debug({ statuses: kept }, 'reply statuses stored');
  const open = new Map<string, NumberedStatus>();
  for (const event of statuses.filter(({ providerMessageId }) => !settled.has(providerMessageId))) {
    const known = open.get(event.providerMessageId);
    const higher = known && HEIGHT[known.status] >= HEIGHT[event.status] ? known : event;
    // Any of them may have our id, which finds the row even if WhatsApp's does not.
    const correlationId = known?.correlationId ?? event.correlationId;
    open.set(event.providerMessageId, { ...higher, ...(correlationId === undefined ? {} : { correlationId }) });
  }
  for (const event of open.values()) await applyStatus(event, deadlineMs, dependencies);
}

/** The correlation id, if it is an id of ours. */
export function ownId(correlationId: string | undefined): string | undefined {
  return correlationId && UUID.test(correlationId) ? correlationId : undefined;
}

const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i;

/** Must run after the event was written: see joinEarlyReports for why no status can be lost. */
async function applyStatus(event: NumberedStatus, deadlineMs: number, { db, signaller, logger }: StatusDependencies): Promise<void> {
  const { providerMessageId, phoneNumberId, status, correlationId } = event;
  const fact = { status, phoneNumberId, providerMessageId, ...(event.error ? { failure: `whatsapp ${event.error.code}` } : {}) };
  const messageId = ownId(correlationId);
  const key = messageId ? { messageId } : { providerMessageId };
  const raised = await fromRecord(raiseReply(db, key, fact));
  const idIsNew = raised && 'messageId' in key && ['pending', 'sending', 'unconfirmed'].includes(raised.previous);
  if (idIsNew) await fromRecord(joinEarlyReports(db, { providerMessageId, phoneNumberId }));
  // A row that was locked when the report was stored did not get its time.
  else await fromRecord(noteSentTime(db, providerMessageId));
  if (!raised) return;
  logger.info(
    { messageId: raised.messageId, workflowId: raised.workflowId, status: raised.status, previous: raised.previous },
    'reply status settled',
  );
  if (raised.status !== 'failed' && raised.previous !== 'unconfirmed') return;
  await tellWorkflow(raised, deadlineMs, { signaller, logger });
}

/** A workflow that has ended needs no signal; a running one also reads the row, so a lost signal only costs time. */
async function tellWorkflow(
  { messageId, workflowId, status }: { messageId: string; workflowId: string; status: string },
  deadlineMs: number,
  { signaller, logger }: Pick<StatusDependencies, 'signaller' | 'logger'>,
): Promise<void> {
  try {
    await signaller.tellRunning(workflowId, sendReported, { messageId, status: status === 'failed' ? 'failed' : 'sent' }, deadlineMs);
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) logger.debug({ workflowId, messageId }, 'no workflow waits for the status');
    else logger.warn({ error, workflowId, messageId }, 'signalling the status to the workflow failed');
  }
}
