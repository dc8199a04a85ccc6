/**
 * Finds out what became of an unconfirmed send. Never sends again: hours later a reply would only confuse. A `sent` or `failed` webhook
 * settles the row by itself, and the next look-up sees it.
 */
import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
import { ParentClosePolicy, setCurrentDetails, sleep, startChild } from '@temporalio/workflow';
import { type SendVerdict, type SettlementInput, type SettlementResult, settlementWorkflowId } from './contract';
import { failureType } from './failures';
import { settlement } from './proxies';

const FIRST_PAUSE_MS = 2 * 60_000;
const LONGEST_PAUSE_MS = 30 * 60_000;

export async function settlementWorkflow({ messageId, untilMs, firstPauseMs }: SettlementInput): Promise<SettlementResult> {
  for (let pauseMs = firstPauseMs ?? FIRST_PAUSE_MS; Date.now() < untilMs; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
    setCurrentDetails('Unknown whether a reply was delivered. Asking Kapso from time to time; nothing is sent again.');
    await sleep(Math.max(1, Math.min(pauseMs, untilMs - Date.now())), { summary: 'ask Kapso again' });
    const { status } = await lookUp(messageId);
    if (status !== 'sent' && status !== 'failed') continue;
    setCurrentDetails(status === 'sent' ? 'The reply was sent.' : 'The reply was not delivered.');
    return { status };
  }
  setCurrentDetails('Unknown whether the reply was delivered; it is too late to find out.');
  return { status: 'unconfirmed' };
}

/** Starts the settlement as a child of the conversation's workflow that outlives it. Idempotent. */
export async function startSettlement(input: SettlementInput): Promise<void> {
  try {
    await startChild(settlementWorkflow, {
      args: [input],
      workflowId: settlementWorkflowId(input.messageId),
      workflowIdReusePolicy: 'REJECT_DUPLICATE',
      parentClosePolicy: ParentClosePolicy.ABANDON,
      staticSummary: 'Settles an unconfirmed send',
    });
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
  }
}

async function lookUp(messageId: string): Promise<SendVerdict> {
  try {
    const order = { messageId, isLast: true, isLate: true };
    return await settlement.lookUpSend.executeWithOptions({ summary: 'look the reply up at Kapso' }, [order]);
  } catch (error) {
    failureType(error);
    return { status: 'unconfirmed' };
  }
}
