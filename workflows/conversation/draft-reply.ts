/** How the reply of a turn is drafted, by the conversation's behaviour (see `Recorded.flow`). */
import type { DraftResult, Turn } from './turn';
import type { ConversationView } from './view';
import { ProviderWalk } from './walk';
import { walkOnce } from './walk-once';

/** Calls the providers until one has answered or the turn times out. */
export function draftReply(turn: Turn, view: ConversationView): Promise<DraftResult> {
  const { flow = 1 } = turn.recorded;
  return flow >= 2 ? new ProviderWalk(turn, view).run() : walkOnce(turn, view);
}
