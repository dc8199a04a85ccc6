/**
 * Finds out what became of a send in doubt. Nothing is sent again here: hours later a reply would only confuse. A `sent` or `failed`
 * webhook settles the row by itself, and the next look sees it.
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
    setCurrentDetails('Unknown whether a reply went out. Kapso is asked from time to time; nothing is sent again.');
    await sleep(Math.max(1, Math.min(pauseMs, untilMs - Date.now())), { summary: 'ask Kapso again' });
    const { status } = await lookUp(messageId);
    if (status !== 'sent' && status !== 'failed') continue;
    setCurrentDetails(status === 'sent' ? 'The reply went out.' : 'The reply did not go out.');
    return { status };
  }
  setCurrentDetails('Unknown whether the reply went out, and nobody can be asked any more.');
  return { status: 'unconfirmed' };
}

/** For the conversation's workflow: begins the settlement, which goes on when the conversation ends. Twice is once. */
export async function startSettlement(input: SettlementInput): Promise<void> {
  try {
    await startChild(settlementWorkflow, {
      args: [input],
      workflowId: settlementWorkflowId(input.messageId),
      workflowIdReusePolicy: 'REJECT_DUPLICATE',
      parentClosePolicy: ParentClosePolicy.ABANDON,
      staticSummary: 'Settles a send in doubt',
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
