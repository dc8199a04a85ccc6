/** How the reply of a turn is drafted, by the conversation's behaviour (see `Recorded.flow`). */
import type { DraftResult, Turn } from './turn';
import type { ConversationView } from './view';
import { type Interruption, ProviderWalk } from './walk';
import { walkOnce } from './walk-once';

/** Calls the providers until one has answered, the turn times out, or somebody has taken over. */
export function draftReply(turn: Turn, view: ConversationView, interruption: Interruption): Promise<DraftResult> {
  const { flow = 1 } = turn.recorded;
  return flow >= 2 ? new ProviderWalk(turn, view, interruption).run() : walkOnce(turn, view);
}
