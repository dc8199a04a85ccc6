/** Steps of a conversation that it can do without. */
import { log } from '@temporalio/workflow';
import { failureType, REFUSED_BY_DATABASE } from '../failures';

/** Undefined if the database refuses the step: asking for attention, or no longer asking for it, must not stop a conversation. */
export async function unlessRefused<T>(step: Promise<T>): Promise<T | undefined> {
  try {
    return await step;
  } catch (error) {
    if (failureType(error) !== REFUSED_BY_DATABASE) throw error;
    log.error('the database refused an attention request or its end');
    return undefined;
  }
}
