/** Delivers a call's result to its callback URL, in a separate workflow, because that may take a day after the call has ended. */
import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
import {
  ActivityFailure,
  ApplicationFailure,
  isCancellation,
  ParentClosePolicy,
  setCurrentDetails,
  startChild,
} from '@temporalio/workflow';
import type { CallbackDelivery } from '../../activities';
import { type CallbackInput, callbackWorkflowId } from '../contract';
import { callbackRecords, callbacks } from '../proxies';

export async function callbackWorkflow({ callId, isUpdate, giveUpAfterMs }: CallbackInput): Promise<CallbackDelivery> {
  try {
    const bound = giveUpAfterMs === undefined ? {} : { scheduleToCloseTimeout: giveUpAfterMs };
    const options = { summary: isUpdate ? "post the call's improved result" : "post the call's result", ...bound };
    const delivery = await callbacks.deliverCallback.executeWithOptions(options, [{ callId, ...(isUpdate ? { isUpdate } : {}) }]);
    setCurrentDetails(delivery.delivered ? 'delivered' : `not delivered: ${delivery.reason}`);
    return delivery;
  } catch (error) {
    if (isCancellation(error)) throw error;
    const reason = lastFailure(error);
    setCurrentDetails(`not delivered: ${reason}`);
    await callbackRecords.recordFailedCallback.executeWithOptions({ summary: 'callback not delivered: needs attention' }, [
      { callId, reason },
    ]);
    throw ApplicationFailure.nonRetryable(`the result was not delivered: ${reason}`, 'CallbackError.GaveUp');
  }
}

/** Starts the delivery, unless it was started before. It outlives the workflow that started it. */
export async function startCallback(callId: string): Promise<void> {
  try {
    await startChild(callbackWorkflow, {
      args: [{ callId }],
      workflowId: callbackWorkflowId(callId),
      workflowIdReusePolicy: 'REJECT_DUPLICATE',
      parentClosePolicy: ParentClosePolicy.ABANDON,
      staticSummary: "callback with a call's result",
    });
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
  }
}

/** Type and message of the last attempt's failure, which is the cause of the timeout that ends the attempts. */
function lastFailure(error: unknown): string {
  let found = 'no attempt was made';
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof ApplicationFailure) found = `${cause.type}: ${cause.message}`;
    else if (!(cause instanceof ActivityFailure) && found === 'no attempt was made') found = cause.name;
  }
  return found;
}
