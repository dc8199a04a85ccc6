/** Steps of a conversation that it can do without. */
import { log } from '@temporalio/workflow';
import { failureType, REFUSED_BY_DATABASE } from '../failures';

/** Undefined if the database refuses the step, which must not stop a conversation. */
export async function unlessRefused<T>(step: Promise<T>): Promise<T | undefined> {
  try {
    return await step;
  } catch (error) {
    if (failureType(error) !== REFUSED_BY_DATABASE) throw error;
    log.error('the database refused a step that the conversation can do without');
    return undefined;
  }
}
