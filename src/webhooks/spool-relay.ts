/**
 * Delivers the requests in the spool: one process at a time, in order per workflow, with growing pauses while Temporal is down. A request
 * that is delivered twice, such as a signal whose response was lost, is dropped by the workflow or by a unique key.
 */
import { isGrpcServiceError } from '@temporalio/client';
import { type LateEvents, readConversationWorkflowId } from '../../workflows/contract';
import type { Database } from '../platform/database';
import { isDatabaseAway } from '../platform/database-errors';
import { type DatabaseSession, MAX_SILENCE_MS, openSession } from '../platform/database-session';
import { pause } from '../platform/lifecycle';
import type { Logger } from '../platform/logger';
import { isTemporalRefusal } from '../platform/temporal';
import { raiseAlert } from '../record/alerts';
import { keepDeadLetter, type SignalLetter, type WebhookLetter } from '../record/dead-letters';
import {
  findSpooledRequests,
  lockRelay,
  markRelayed,
  SPOOL_CHANNEL,
  type SpoolDepth,
  type SpooledRow,
  spoolDepth,
  unlockRelay,
} from '../record/spool';
import { NotStoredError } from './hand-over';
import { type SendToTemporal, type TemporalRequest, workflowIdOf } from './signaller';
import { isAnswer, type Spool } from './spool';
import type { TakeLateEvents } from './take-late-events';

/** Requests per round, and workflows that are signalled concurrently. */
const BATCH = 500;
const AT_ONCE = 20;

/** A round ends after this time, because its session must not be silent for long. */
const ROUND_MS = MAX_SILENCE_MS / 3;
const SEND_TIMEOUT_MS = 5_000;

/** Pause after a round that found Temporal down; doubled each time, up to the longest. */
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 5_000;

/** Pause while another process relays or the database is down, and between two looks at an empty spool (notifications end it early). */
const OTHERS_PAUSE_MS = 1_000;
const EMPTY_PAUSE_MS = 5_000;

/** A request that Temporal rejects this many times, while it accepts others, becomes a dead letter. Its workflow waits between two attempts. */
const MOST_REFUSALS = 5;
const REFUSAL_PAUSE_MS = 1_000;

/** An alert is raised when the oldest request is older, and again after this time. */
const ALERT_AFTER_SECONDS = 3 * 60;

export interface RelayDependencies {
  db: Database;
  databaseUrl: string;
  spool: Pick<Spool, 'looked' | 'mayWait' | 'storedCount' | 'temporalAnswered'>;
  /** Sends directly to Temporal. */
  sendNow: SendToTemporal;
  takeEvents: TakeLateEvents;
  /** Throws if the namespace lacks something that every request needs. */
  checkTemporal(): Promise<void>;
  logger: Logger;
  /** Both have defaults. */
  alertAfterSeconds?: number;
  refusalPauseMs?: number;
}

/** `away`: Temporal, or something that it needs, is down. `resting`: only refused requests are left. */
type Round = 'moved' | 'away' | 'resting';

/** Relays until `signal` aborts. Resolves when the last round is over. */
export async function relaySpool(dependencies: RelayDependencies, signal: AbortSignal): Promise<void> {
  const { databaseUrl, spool, logger } = dependencies;
  const relay = createRelay(dependencies, signal);
  const bell = createBell();
  signal.addEventListener('abort', bell.ring, { once: true });
  let isAway = false;
  while (!signal.aborted) {
    let session: DatabaseSession | undefined;
    try {
      const ring = () => {
        spool.mayWait();
        bell.ring();
      };
      session = await openSession(databaseUrl, { channel: SPOOL_CHANNEL, onNotification: ring, onLost: ring });
      isAway = false;
      await serve(session, relay, bell, dependencies, signal);
    } catch (error) {
      spool.mayWait();
      if (!isAway && !signal.aborted) logger.warn({ error }, 'the spool is out of reach; trying again');
      isAway = true;
      await pause(OTHERS_PAUSE_MS, signal);
    } finally {
      await session?.close();
    }
  }
}

async function serve(
  session: DatabaseSession,
  relayRound: () => Promise<Round>,
  bell: Bell,
  { spool, ...dependencies }: RelayDependencies,
  signal: AbortSignal,
): Promise<void> {
  const alarm = createAlarm(dependencies);
  let pauseMs = FIRST_PAUSE_MS;
  while (!signal.aborted) {
    const storedCount = spool.storedCount();
    const depth = await spoolDepth(session);
    spool.looked(depth, storedCount);
    if (depth.waiting === 0) {
      pauseMs = FIRST_PAUSE_MS;
      await bell.wait(EMPTY_PAUSE_MS);
    } else if (await lockRelay(session)) {
      await alarm(depth);
      const round = await relayRound();
      await unlockRelay(session);
      if (round !== 'moved') await pause(pauseMs, signal);
      pauseMs = round === 'away' ? Math.min(2 * pauseMs, LONGEST_PAUSE_MS) : FIRST_PAUSE_MS;
    } else {
      await pause(OTHERS_PAUSE_MS, signal);
    }
  }
}

function createRelay(dependencies: RelayDependencies, signal: AbortSignal): () => Promise<Round> {
  const { db, spool, sendNow, takeEvents, checkTemporal, logger, refusalPauseMs = REFUSAL_PAUSE_MS } = dependencies;
  const refusals = new Map<string, { position: bigint; count: number; restsUntilMs: number }>();

  /** Returns whether the row is done with. @throws AwayError */
  async function relayRow({ position, workflowId, request: json }: SpooledRow): Promise<boolean> {
    const request = JSON.parse(json) as TemporalRequest | SpooledEvents;
    try {
      if (request.kind === 'events') await takeEvents(request.events);
      else await sendNow(request, Date.now() + SEND_TIMEOUT_MS);
    } catch (error) {
      if (!isAnswer(error)) return await judge(error, { position, workflowId }, request);
    }
    refusals.delete(workflowId);
    return true;
  }

  async function judge(
    error: unknown,
    { position, workflowId }: Omit<SpooledRow, 'request'>,
    request: TemporalRequest | SpooledEvents,
  ): Promise<boolean> {
    const isRefused = request.kind === 'events' ? !isPassing(error) : isTemporalRefusal(error);
    if (!isRefused) throw new AwayError(error);
    await checkTemporal().catch((problem: unknown) => {
      throw new AwayError(problem);
    });
    const known = refusals.get(workflowId);
    const count = known?.position === position ? known.count + 1 : 1;
    if (count < MOST_REFUSALS) {
      refusals.set(workflowId, { position, count, restsUntilMs: Date.now() + refusalPauseMs * 2 ** (count - 1) });
      logger.warn({ error, workflowId, count }, 'Temporal rejects a spooled request; trying again');
      return false;
    }
    const deadLetterId = await keepDeadLetter(db, refusedLetter(request));
    logger.error({ error, workflowId, deadLetterId }, 'Temporal rejects a spooled request: stored as a dead letter');
    refusals.delete(workflowId);
    return true;
  }

  /** Delivers the requests of one workflow, in order, until one cannot be delivered. */
  async function relayWorkflow(rows: readonly SpooledRow[], isOver: () => boolean): Promise<number> {
    const done: bigint[] = [];
    try {
      for (const row of rows) {
        if (isOver() || !(await relayRow(row))) break;
        done.push(row.position);
        spool.temporalAnswered();
      }
    } finally {
      if (done.length > 0) await markRelayed(db, done);
    }
    return done.length;
  }

  return async () => {
    const endsAtMs = Date.now() + ROUND_MS;
    const resting = [...refusals].flatMap(([workflowId, { restsUntilMs }]) => (restsUntilMs > Date.now() ? workflowId : []));
    const rows = await findSpooledRequests(db, { limit: BATCH, except: resting });
    const queues = groupByWorkflow(rows);
    let relayed = 0;
    let away: AwayError | undefined;
    const isOver = () => signal.aborted || away !== undefined || Date.now() > endsAtMs;
    const work = async () => {
      for (let queue = queues.shift(); queue !== undefined && !isOver(); queue = queues.shift()) {
        try {
          relayed += await relayWorkflow(queue, isOver);
        } catch (error) {
          if (!(error instanceof AwayError)) throw error;
          away ??= error;
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    if (relayed > 0) logger.info({ relayed }, 'spooled requests delivered');
    if (away !== undefined) logger.warn({ error: away.cause, waiting: rows.length - relayed }, 'Temporal is away; the spool waits');
    if (away !== undefined) return 'away';
    return relayed > 0 ? 'moved' : 'resting';
  };
}

/** Events that came while the database was away (activities/late-events.ts). */
interface SpooledEvents {
  kind: 'events';
  events: LateEvents;
}

/** Whether events can be processed later: the database or Temporal is down. */
function isPassing(error: unknown): boolean {
  return error instanceof NotStoredError || isDatabaseAway(error) || isGrpcServiceError(error instanceof Error ? error.cause : error);
}

/** Temporal did not accept a request now, but may later. */
class AwayError extends Error {
  override name = 'AwayError';
  constructor(cause: unknown) {
    super('Temporal is away', { cause });
  }
}

function refusedLetter(request: TemporalRequest | SpooledEvents): SignalLetter | WebhookLetter {
  if (request.kind === 'events') return lateLetter(request.events);
  const phoneNumberId = numberOf(workflowIdOf(request));
  const letter = { source: 'signal', reason: 'temporal_refused', detail: 'Temporal rejects a signal; its error is in the log.' } as const;
  return { ...letter, ...(phoneNumberId === undefined ? {} : { phoneNumberId }), body: request };
}

function lateLetter({ source, body, event }: LateEvents): WebhookLetter {
  return {
    ...{ source, reason: 'unreadable', detail: 'It could not be taken; the error is in the log.' },
    ...(event === undefined ? {} : { event }),
    body: 'base64' in body ? Buffer.from(body.base64, 'base64') : body.json,
  };
}

/** The business number of a conversation's workflow; undefined for other workflows. */
function numberOf(workflowId: string): string | undefined {
  return workflowId.startsWith('conversation-') ? readConversationWorkflowId(workflowId).phoneNumberId : undefined;
}

/** Raises an alert when requests have waited for a long time, and repeats it while they do. */
function createAlarm({ db, alertAfterSeconds = ALERT_AFTER_SECONDS }: Pick<RelayDependencies, 'db' | 'alertAfterSeconds'>) {
  let raisedAtMs = Number.NEGATIVE_INFINITY;
  return async ({ waiting, oldestSeconds }: SpoolDepth): Promise<void> => {
    if (oldestSeconds < alertAfterSeconds || Date.now() - raisedAtMs < alertAfterSeconds * 1_000) return;
    raisedAtMs = Date.now();
    await raiseAlert(db, {
      cause: 'spool',
      text: `spool: ${spoolText({ waiting, oldestSeconds })}; see why Temporal does not accept them`,
    });
  };
}

/** Describes what waits, for people. */
export function spoolText({ waiting, oldestSeconds }: SpoolDepth): string {
  const age = oldestSeconds < 120 ? `${Math.round(oldestSeconds)} s` : `${Math.round(oldestSeconds / 60)} min`;
  return `${waiting} webhook events wait for Temporal, the oldest for ${age}`;
}

interface Bell {
  ring(): void;
  /** Resolves after `ms` milliseconds, or once the bell rings; at once if it has rung since the last wait. */
  wait(ms: number): Promise<void>;
}

function createBell(): Bell {
  let rung = new AbortController();
  return {
    ring: () => rung.abort(),
    async wait(ms) {
      await pause(ms, rung.signal);
      rung = new AbortController();
    },
  };
}

function groupByWorkflow(rows: readonly SpooledRow[]): SpooledRow[][] {
  const groups = new Map<string, SpooledRow[]>();
  for (const row of rows) {
    const group = groups.get(row.workflowId);
    if (group) group.push(row);
    else groups.set(row.workflowId, [row]);
  }
  return [...groups.values()];
}
