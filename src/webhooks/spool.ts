/**
 * Sends requests to Temporal, or stores them in the spool if Temporal is down or slow. While requests for a workflow wait there, later ones
 * for it go there as well, so that they stay in order.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { WorkflowExecutionAlreadyStartedError, WorkflowNotFoundError } from '@temporalio/client';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import { isTemporalRefusal } from '../platform/temporal';
import { hasSpooledRequest, type SpoolDepth, spoolRequest } from '../record/spool';
import { type SendToTemporal, type TemporalRequest, workflowIdOf } from './signaller';

/** Timeout for storing a request. A late statement is harmless: its request is delivered twice, and dropped once. */
const STORE_TIMEOUT_MS = 1_500;

/** Timeout for the look whether requests of a workflow wait. */
const LOOK_TIMEOUT_MS = 250;

/** Timeout of the last attempt at Temporal, when the database did not store the request and the deadline has passed. Senders wait for 10 s. */
const LAST_TRY_MS = 1_000;

/** After the database failed to store a request, other requests bypass it for this long. */
const DATABASE_PAUSE_MS = 1_000;

/** Delay of the response to the first request after a quiet time: other processes get the notification before the sender sends its next event. */
const NOTICE_MS = 100;
const NOTICED_FOR_MS = 1_000;

/** After so many failures in a row, requests go to the spool at once; one per pause tries Temporal again. */
const FAILURES_IN_A_ROW = 3;
const CIRCUIT_PAUSE_MS = 2_000;

export interface Spool {
  /** Resolves once Temporal or the spool has stored the request. Rejects if neither did, or with Temporal's answer about the workflow. */
  send: SendToTemporal;
  /** The spool's content at the last look. */
  depth(): SpoolDepth;
  /** How many requests this process has stored; a look that began at a different count may have missed one. */
  storedCount(): number;
  /** Notes the result of a look, which began at `storedCount`. */
  looked(depth: SpoolDepth, storedCount: number): void;
  /** Requests may wait: another process has stored one, or this one may have missed a notification. */
  mayWait(): void;
  /** Temporal accepts requests again. */
  temporalAnswered(): void;
}

/** One per process. `sendNow` sends directly to Temporal. */
export function createSpool({ db, sendNow, logger }: { db: Database; sendNow: SendToTemporal; logger: Logger }): Spool {
  const circuit = createCircuit();
  let isEmpty = false;
  let depth: SpoolDepth = { waiting: 0, oldestSeconds: 0 };
  let stored = 0;
  let lastStoredAtMs = Number.NEGATIVE_INFINITY;
  let databaseFailedAtMs = Number.NEGATIVE_INFINITY;

  /**
   * Whether requests of the workflow wait, or may wait because the database is slow. Costs no query while the spool is empty. While the
   * database is down, this is unknown, and delivering now is better than not at all.
   */
  async function mayWait(workflowId: string): Promise<boolean> {
    if (isEmpty || Date.now() - databaseFailedAtMs < DATABASE_PAUSE_MS) return false;
    return await fromRecord(hasSpooledRequest(db, workflowId), LOOK_TIMEOUT_MS).catch(() => true);
  }

  async function store(request: TemporalRequest): Promise<void> {
    isEmpty = false;
    stored += 1;
    try {
      await fromRecord(spoolRequest(db, { workflowId: workflowIdOf(request), request: JSON.stringify(request) }), STORE_TIMEOUT_MS);
    } catch (error) {
      databaseFailedAtMs = Date.now();
      throw error;
    }
    const isNews = Date.now() - lastStoredAtMs > NOTICED_FOR_MS;
    lastStoredAtMs = Date.now();
    if (isNews) await sleep(NOTICE_MS);
  }

  /** Undefined if Temporal accepted the request; otherwise the reason. @throws Temporal's answer about the workflow */
  async function tryNow(request: TemporalRequest, deadlineMs: number): Promise<unknown> {
    try {
      await sendNow(request, deadlineMs);
      circuit.succeeded();
      return undefined;
    } catch (error) {
      if (isAnswer(error) || isTemporalRefusal(error)) circuit.succeeded();
      else circuit.failed();
      if (isAnswer(error)) throw error;
      return error ?? new Error('Temporal did not accept the request');
    }
  }

  async function send(request: TemporalRequest, deadlineMs: number): Promise<void> {
    const workflowId = workflowIdOf(request);
    const mayTry = !(await mayWait(workflowId)) && circuit.allows();
    const problem = mayTry ? await tryNow(request, deadlineMs) : undefined;
    if (mayTry && problem === undefined) return;
    try {
      await store(request);
      logger.warn({ workflowId, kind: request.kind, ...(mayTry && { error: problem }) }, 'Temporal is away or slow: request spooled');
    } catch (error) {
      logger.error({ error, workflowId }, 'the spool did not accept a request');
      // Better out of order than not at all.
      const stillAway = mayTry ? problem : await tryNow(request, Math.max(deadlineMs, Date.now() + LAST_TRY_MS));
      if (stillAway !== undefined) throw stillAway;
    }
  }

  return {
    send,
    depth: () => depth,
    storedCount: () => stored,
    looked(seen, storedCount) {
      depth = seen;
      isEmpty = seen.waiting === 0 && storedCount === stored;
    },
    mayWait() {
      isEmpty = false;
    },
    temporalAnswered: circuit.succeeded,
  };
}

/** Whether the error is Temporal's answer about the workflow, rather than a failure to reach it. */
export function isAnswer(error: unknown): boolean {
  return error instanceof WorkflowExecutionAlreadyStartedError || error instanceof WorkflowNotFoundError;
}

interface Circuit {
  allows(): boolean;
  succeeded(): void;
  failed(): void;
}

function createCircuit(): Circuit {
  let failures = 0;
  let nextTryAtMs = 0;
  return {
    allows() {
      if (failures < FAILURES_IN_A_ROW) return true;
      if (Date.now() < nextTryAtMs) return false;
      nextTryAtMs = Date.now() + CIRCUIT_PAUSE_MS;
      return true;
    },
    succeeded() {
      failures = 0;
    },
    failed() {
      failures += 1;
      if (failures === FAILURES_IN_A_ROW) nextTryAtMs = Date.now() + CIRCUIT_PAUSE_MS;
    },
  };
}
