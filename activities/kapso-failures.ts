/** Turns what went wrong at Kapso into failures that workflows can branch on, and that say when to try again. */
import { ApplicationFailure } from '@temporalio/activity';
import { KapsoListError } from '../src/providers/kapso/lists';
import type { KapsoFailure } from '../src/providers/kapso/platform';

/** Kapso counts requests per minute (429 without a header). */
const RATE_WINDOW_MS = 60_000;

/** The failure of a list; any other error unchanged. */
export function listFailure(error: unknown): unknown {
  if (!(error instanceof KapsoListError)) return error;
  const { status, retryAfterMs } = error;
  return status === undefined
    ? kapsoFailure({ kind: 'unreachable', reason: error.message })
    : kapsoFailure({ kind: 'refused', status, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) });
}

/** `KapsoError.Refused` fails again until a person acts; the others are worth a retry. */
export function kapsoFailure(failure: KapsoFailure): ApplicationFailure {
  if (failure.kind === 'unreachable')
    return ApplicationFailure.create({ type: 'KapsoError.Unreachable', message: `Kapso is unreachable: ${failure.reason}` });
  const { status, retryAfterMs } = failure;
  if (status === 429) {
    const waitMs = Math.max(retryAfterMs ?? RATE_WINDOW_MS, 1_000);
    return ApplicationFailure.create({
      ...{ type: 'KapsoError.Limited', message: 'Kapso limits the requests', nextRetryDelay: waitMs },
      // Kapso's limit is a wait, not a fault.
      category: 'BENIGN',
    });
  }
  if (status >= 500 || status === 408)
    return ApplicationFailure.create({
      ...{ type: 'KapsoError.Unavailable', message: `Kapso responded with ${status}` },
      ...(retryAfterMs === undefined || retryAfterMs === 0 ? {} : { nextRetryDelay: retryAfterMs }),
    });
  return ApplicationFailure.create({ type: 'KapsoError.Refused', message: refusalText(status), nonRetryable: true });
}

function refusalText(status: number): string {
  if (status === 401 || status === 403) return `Kapso refuses the key (${status}): check KAPSO_API_KEY`;
  if (status === 404)
    return 'Kapso does not know the number (404): check its phone number id, and that the key belongs to the same project';
  return `Kapso responded with ${status}`;
}
