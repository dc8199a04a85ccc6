/**
 * Keeps what WhatsApp reports about replies: facts about rows, not decisions, so they are written at once, and told to
 * a workflow only when one waits for them. Three come for each reply, from as many webhooks: those of a moment are
 * written together, which costs the record a fraction.
 */
import type { Client } from '@temporalio/client';
import { type ReportedStatus, sendReported } from '../../workflows/contract';
import type { Database } from '../platform/database';
import { isDatabaseAway } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import type { StatusEvent } from '../providers/kapso/events';
import { joinEarlyReports, keepReports, raiseReply } from '../record/replies';
import { SIGNAL_TIMEOUT_MS } from './signaller';

export interface StatusKeeper {
  /** Resolves when the statuses stand in the record. Rejects with what the record throws; then none of them may be taken for kept. */
  keep(statuses: readonly StatusEvent[]): Promise<void>;
}

export interface StatusDependencies {
  db: Database;
  temporal: Client;
  logger: Logger;
}

/** Statuses wait this long for others. Kapso gives an answer 10 s, but holds the conversation's next webhook back until it comes. */
const GATHER_MS = 100;
/** With so many webhooks nobody waits for more. */
const MOST_TOGETHER = 100;

interface Delivery {
  statuses: readonly StatusEvent[];
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

  /** One statement for all of them; what is left to do for a webhook then, no other waits for. */
  async function keepTogether(deliveries: Delivery[]): Promise<void> {
    let settled: Set<string>;
    try {
      settled = await keepReports(
        dependencies.db,
        deliveries.flatMap(({ statuses }) => statuses),
      );
    } catch (error) {
      // What the record refuses may be a single one, and must not keep the others out.
      if (deliveries.length > 1 && !isDatabaseAway(error)) for (const delivery of deliveries) void keepTogether([delivery]);
      else for (const { failed } of deliveries) failed(error);
      return;
    }
    for (const { statuses, done, failed } of deliveries) applyStatuses(statuses, settled, dependencies).then(done, failed);
  }

  return {
    keep: (statuses) =>
      new Promise((done, failed) => {
        gathered.push({ statuses, done, failed });
        if (gathered.length >= MOST_TOGETHER) flush();
        else timer ??= setTimeout(flush, GATHER_MS);
      }),
  };
}

const HEIGHT: Record<ReportedStatus, number> = { sent: 1, delivered: 2, read: 3, failed: 4 };

/** Settles what the statement for all left open: replies whose provider id the record does not have yet, and failures. */
async function applyStatuses(
  statuses: readonly StatusEvent[],
  settled: ReadonlySet<string>,
  dependencies: StatusDependencies,
): Promise<void> {
  const kept = statuses.map(({ correlationId, status }) => ({ messageId: ownId(correlationId), status }));
  dependencies.logger.debug({ statuses: kept }, 'reply statuses kept');
  const open = new Map<string, StatusEvent>();
  for (const event of statuses.filter(({ providerMessageId }) => !settled.has(providerMessageId))) {
    const known = open.get(event.providerMessageId);
    const higher = known && HEIGHT[known.status] >= HEIGHT[event.status] ? known : event;
    // Our id may stand in any of them, and finds the row when WhatsApp's does not.
    const correlationId = known?.correlationId ?? event.correlationId;
    open.set(event.providerMessageId, { ...higher, ...(correlationId === undefined ? {} : { correlationId }) });
  }
  for (const event of open.values()) await applyStatus(event, dependencies);
}

/** Our id, when what came back is one: anything else may say anything. */
function ownId(correlationId: string | undefined): string | undefined {
  return correlationId && UUID.test(correlationId) ? correlationId : undefined;
}

const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i;

/** Must run after the event is written: see joinEarlyReports for why no order of the two can lose a status. */
async function applyStatus(event: StatusEvent, { db, temporal, logger }: StatusDependencies): Promise<void> {
  const { providerMessageId, phoneNumberId, status, correlationId } = event;
  const fact = { status, phoneNumberId, providerMessageId, ...(event.error ? { failure: `whatsapp ${event.error.code}` } : {}) };
  const messageId = ownId(correlationId);
  const key = messageId ? { messageId } : { providerMessageId };
  const raised = await raiseReply(db, key, fact);
  if (!raised) return;
  const idIsNew = 'messageId' in key && ['pending', 'sending', 'unconfirmed'].includes(raised.previous);
  if (idIsNew) await joinEarlyReports(db, { providerMessageId, phoneNumberId });
  logger.info(
    { messageId: raised.messageId, workflowId: raised.workflowId, status: raised.status, previous: raised.previous },
    'reply status settled',
  );
  if (raised.status !== 'failed' && raised.previous !== 'unconfirmed') return;
  await tellWorkflow(raised, { temporal, logger });
}

/** The row is the truth, and the workflow looks there too: a signal that does not get through costs time, nothing else. */
async function tellWorkflow(
  raised: { messageId: string; workflowId: string; status: string },
  { temporal, logger }: Pick<StatusDependencies, 'temporal' | 'logger'>,
): Promise<void> {
  try {
    const handle = temporal.workflow.getHandle(raised.workflowId);
    await temporal.connection.withDeadline(Date.now() + SIGNAL_TIMEOUT_MS, () =>
      handle.signal(sendReported, { messageId: raised.messageId, status: raised.status === 'failed' ? 'failed' : 'sent' }),
    );
  } catch (error) {
    logger.warn({ error, workflowId: raised.workflowId, messageId: raised.messageId }, 'the workflow was not told of the status');
  }
}
