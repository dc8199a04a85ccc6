/** Validates the arguments of the updates of a conversation's mode. */
import { ApplicationFailure } from '@temporalio/workflow';
import { HAND_OVER_REASONS, MODE_INVALID, type ModeAction, type ModeOrder } from '../contract';

/** @throws ApplicationFailure `ModeError.Invalid`, with what is wrong */
export function checkModeOrder(action: ModeAction, order: ModeOrder | undefined): void {
  const problem = problemOf(action, order);
  if (problem !== undefined) throw ApplicationFailure.nonRetryable(problem, MODE_INVALID);
}

/** An operator may have typed the argument in the Temporal UI. */
function problemOf(action: ModeAction, order: ModeOrder | undefined): string | undefined {
  if (typeof order?.conversationId !== 'string') return 'conversationId: is missing';
  if (typeof order.by !== 'string' || order.by.trim() === '') return 'by: must say who requests it';
  if (order.untilMs !== undefined && !(order.untilMs > Date.now())) return 'untilMs: must be in the future';
  if (action === 'assign' && (typeof order.to !== 'string' || order.to.trim() === '')) return 'to: must say who gets the conversation';
  if (action === 'handOver' && !HAND_OVER_REASONS.some((reason) => reason === order.handOver?.reason))
    return `handOver.reason: must be one of ${HAND_OVER_REASONS.join(', ')}`;
  return undefined;
}
