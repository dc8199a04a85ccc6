/**
 * One pass over Kapso's message list, from where the last one ended: what came by no webhook is processed like one. The position is
 * in the database, so a pass may end anywhere. Started by a schedule per number, at the start of every process, and by operators.
 */
import { isCancellation, log, setCurrentDetails, sleep } from '@temporalio/workflow';
import type { RepairPlan } from '../activities';
import type { RepairInput, RepairResult } from './contract';
import { failureText } from './failures';
import { repairRecords, repairs } from './proxies';

const FIRST_SLICE_MS = 5 * 60_000;
const SHORTEST_SLICE_MS = 60_000;
const LONGEST_SLICE_MS = 6 * 60 * 60_000;
/** One page of the list. A slice with fewer rows wastes a request, so the next one is longer. */
const FEW_ROWS = 100;
const MANY_ROWS = 1_000;

/** While the webhook is paused, a pass repeats itself; after so many rounds the schedule starts the next one. */
const MAX_ROUNDS = 200;

export async function repairWorkflow({ phoneNumberId }: RepairInput): Promise<RepairResult> {
  const result: RepairResult = { listed: 0, messages: 0, statuses: 0, unreadable: 0 };
  try {
    for (let round = 1; ; round += 1) {
      const plan = await repairs.planRepair.executeWithOptions({ summary: 'look at the webhook, and where the last pass ended' }, [
        { phoneNumberId },
      ]);
      if (plan.kind === 'off') return result;
      await walk(phoneNumberId, plan, result);
      if (!plan.isPaused || round === MAX_ROUNDS) return result;
      setCurrentDetails(`Kapso has paused the webhook, so its list is read every ${Math.round(plan.againMs / 1_000)} s. ${textOf(result)}`);
      await sleep(plan.againMs, { summary: 'the webhook is paused: read the list again' });
    }
  } catch (error) {
    if (isCancellation(error)) throw error;
    const problem = failureText(error);
    log.warn('the list could not be read to its end; the next pass goes on from here', { phoneNumberId, problem });
    setCurrentDetails(`Stopped: ${problem}. The next pass goes on from here. ${textOf(result)}`);
    await repairRecords.noteRepairProblem.executeWithOptions({ summary: 'note why the pass stopped' }, [{ phoneNumberId, problem }]);
    return { ...result, problem };
  }
}

/** Works in slices of time: the list is newest first, but a person's messages must be handed over in order. */
async function walk(phoneNumberId: string, plan: Extract<RepairPlan, { kind: 'walk' }>, result: RepairResult): Promise<void> {
  let sliceMs = FIRST_SLICE_MS;
  for (let sinceMs = plan.sinceMs; sinceMs < plan.untilMs; ) {
    const untilMs = Math.min(sinceMs + sliceMs, plan.untilMs);
    setCurrentDetails(`Reading Kapso's list from ${isoTime(sinceMs)} to ${isoTime(untilMs)}. ${textOf(result)}`);
    const options = { summary: `compare Kapso's list with the record up to ${isoTime(untilMs)}` };
    const slice = await repairs.repairSlice.executeWithOptions(options, [{ phoneNumberId, sinceMs, untilMs }]);
    result.listed += slice.listed;
    result.messages += slice.messages;
    result.statuses += slice.statuses;
    result.unreadable += slice.unreadable;
    sinceMs = untilMs;
    if (slice.listed < FEW_ROWS) sliceMs = Math.min(2 * sliceMs, LONGEST_SLICE_MS);
    else if (slice.listed > MANY_ROWS) sliceMs = Math.max(sliceMs / 2, SHORTEST_SLICE_MS);
  }
  setCurrentDetails(textOf(result));
}

function textOf({ listed, messages, statuses, unreadable }: RepairResult): string {
  return `${listed} rows listed; without a webhook: ${messages} messages, ${statuses} statuses, ${unreadable} unreadable rows.`;
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}
