/**
 * Imports a number's history from Kapso: first its conversations, which identify people, then its messages, newest first. Answers
 * nobody. Each page is one step, whose result is the position, so a killed worker repeats one page.
 */
import {
  ActivityFailure,
  ApplicationFailure,
  CancellationScope,
  isCancellation,
  makeContinueAsNewFunc,
  setCurrentDetails,
  workflowInfo,
} from '@temporalio/workflow';
import type { SyncInput, SyncPosition } from './contract';
import { failureText } from './failures';
import { history, historyRecords } from './proxies';

export async function syncWorkflow(input: SyncInput): Promise<SyncPosition> {
  const { position: given, ...order } = input;
  let position = given ?? (await historyRecords.beginSync.executeWithOptions({ summary: 'find where to begin' }, [order]));
  try {
    while (position.phase !== 'done') {
      setCurrentDetails(textOf(position));
      const options = { summary: `import a page of ${position.phase}` };
      position = await history.syncPage.executeWithOptions(options, [{ ...order, position }]);
      if (workflowInfo().continueAsNewSuggested && position.phase !== 'done') break;
    }
  } catch (error) {
    await end(input, error);
  }
  if (position.phase !== 'done')
    await makeContinueAsNewFunc<typeof syncWorkflow>({ initialVersioningBehavior: 'AUTO_UPGRADE' })({ ...input, position });
  await historyRecords.endSync.executeWithOptions({ summary: 'note that it is done' }, [{ ...order, status: 'done' }]);
  setCurrentDetails(`Done. ${textOf(position)}`);
  return position;
}

/** Notes how it ended early. @throws the error, in words for operators */
async function end({ workspaceId, phoneNumberId, syncId }: SyncInput, error: unknown): Promise<never> {
  const order = { workspaceId, phoneNumberId, syncId };
  if (isCancellation(error)) {
    await CancellationScope.nonCancellable(() =>
      historyRecords.endSync.executeWithOptions({ summary: 'note that it was canceled' }, [{ ...order, status: 'canceled' }]),
    );
    throw error;
  }
  if (!(error instanceof ActivityFailure)) throw error;
  const problem = failureText(error);
  setCurrentDetails(`Failed: ${problem}`);
  await historyRecords.endSync.executeWithOptions({ summary: 'note why it failed' }, [{ ...order, status: 'failed', problem }]);
  throw ApplicationFailure.nonRetryable(problem, 'SyncError.Failed');
}

function textOf({ phase, conversations, messages, imported, unreadable }: SyncPosition): string {
  const sofar = `${conversations} conversations, ${messages} messages listed (${imported} are history in the record, ${unreadable} unreadable).`;
  return phase === 'done' ? sofar : `Importing ${phase}: ${sofar}`;
}
