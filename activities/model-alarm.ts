/** Alerts about models that no failed turn reports, because another model of the chain answers in their place. */
import { ApplicationFailure } from '@temporalio/activity';
import type { Database } from '../src/platform/database';
import type { Logger } from '../src/platform/logger';
import { type ModelChoice, modelLabel } from '../src/providers/models/client';
import { raiseAlert } from '../src/record/alerts';
import type { ModelErrorType } from './failures';

export interface ModelAlarm {
  /** The model can answer. */
  succeeded(choice: ModelChoice): void;
  /** Raises an alert at once if the failure lasts until somebody acts, or else if it is one of many in a row. Never throws. */
  failed(choice: ModelChoice, error: unknown): Promise<void>;
}

/** A single outage of a few seconds is nothing to wake people for. */
const FAILURES_IN_A_ROW = 10;

const LASTING: readonly ModelErrorType[] = [
  'ModelError.NoCredit',
  'ModelError.Unauthorized',
  'ModelError.NotFound',
  'ModelError.NotConfigured',
];

/** These are about the content of one conversation. */
const ABOUT_CONTENT: readonly ModelErrorType[] = ['ModelError.ContentRefused', 'ModelError.TooLong', 'ModelError.CutOff'];

/** Each worker counts its own failures. */
export function createModelAlarm({ db, logger }: { db: Database; logger: Logger }): ModelAlarm {
  const failuresInARow = new Map<string, number>();
  return {
    succeeded(choice) {
      failuresInARow.delete(modelLabel(choice));
    },
    async failed(choice, error) {
      const type = modelErrorType(error);
      if (type === undefined || ABOUT_CONTENT.includes(type)) return;
      const model = modelLabel(choice);
      const count = (failuresInARow.get(model) ?? 0) + 1;
      failuresInARow.set(model, count);
      const isLasting = LASTING.includes(type);
      if (!isLasting && count < FAILURES_IN_A_ROW) return;
      const { message } = error as ApplicationFailure;
      const text = isLasting ? message : `${message} (${FAILURES_IN_A_ROW} or more failures in a row)`;
      await raiseAlert(db, { cause: `model: ${model} ${isLasting ? type : 'unavailable'}`, text: `model: ${text}` }).catch(
        (cause: unknown) => logger.warn({ error: cause, model }, 'the alert about a model could not be stored'),
      );
    },
  };
}

function modelErrorType(error: unknown): ModelErrorType | undefined {
  if (!(error instanceof ApplicationFailure) || !error.type?.startsWith('ModelError.')) return undefined;
  return error.type as ModelErrorType;
}
