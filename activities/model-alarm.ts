/** Alerts about models that no failed turn reports, because another model of the chain answers in their place. */
import { ApplicationFailure } from '@temporalio/activity';
import type { Database } from '../src/platform/database';
import type { Logger } from '../src/platform/logger';
import { type ModelChoice, modelLabel } from '../src/providers/models/client';
import { type NewAlert, raiseAlert } from '../src/record/alerts';
import type { ModelErrorType } from './failures';

export interface ModelAlarm {
  /** Notes a failure that lasts until somebody acts, or that is one of many in a row. */
  failed(choice: ModelChoice, error: unknown): void;
  /** Raises an alert about each failing model that this one has answered for. Never throws. */
  succeeded(choice: ModelChoice): Promise<void>;
}

/** An outage of a few seconds is no reason to wake people. */
const FAILURES_IN_A_ROW = 10;

const LASTING: readonly ModelErrorType[] = [
  'ModelError.NoCredit',
  'ModelError.Unauthorized',
  'ModelError.NotFound',
  'ModelError.NotConfigured',
];

/** These are about the content of one conversation. */
const ABOUT_CONTENT: readonly ModelErrorType[] = ['ModelError.ContentRefused', 'ModelError.TooLong', 'ModelError.CutOff'];

/** What a worker has seen of a failing model. */
interface Failing {
  failuresInARow: number;
  /** The alert that is due once another model has answered. */
  due?: NewAlert;
}

/** Each worker counts the failures that it sees itself. */
export function createModelAlarm({ db, logger }: { db: Database; logger: Logger }): ModelAlarm {
  const failing = new Map<string, Failing>();
  return {
    failed(choice, error) {
      const type = modelErrorType(error);
      if (type === undefined || ABOUT_CONTENT.includes(type)) return;
      const model = modelLabel(choice);
      const failuresInARow = (failing.get(model)?.failuresInARow ?? 0) + 1;
      const isDue = LASTING.includes(type) || failuresInARow >= FAILURES_IN_A_ROW;
      failing.set(model, { failuresInARow, ...(isDue ? { due: modelAlert(model, type, (error as ApplicationFailure).message) } : {}) });
    },
    async succeeded(choice) {
      failing.delete(modelLabel(choice));
      for (const [model, { failuresInARow, due }] of failing) {
        if (due === undefined) continue;
        failing.set(model, { failuresInARow });
        await raiseAlert(db, due).catch((error: unknown) => logger.warn({ error, model }, 'the alert about a model could not be stored'));
      }
    },
  };
}

function modelAlert(model: string, type: ModelErrorType, message: string): NewAlert {
  const state = LASTING.includes(type) ? type : 'unavailable';
  return { cause: `model: ${model} ${state}`, text: `model: ${message}; another model answers in its place` };
}

function modelErrorType(error: unknown): ModelErrorType | undefined {
  if (!(error instanceof ApplicationFailure) || !error.type?.startsWith('ModelError.')) return undefined;
  return error.type as ModelErrorType;
}
