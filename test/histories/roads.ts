/** Every road whose history is recorded. */
import { callbackRoads, callRoads, conversationOfCallRoads, retentionRoads } from './call-roads';
import { conversationRoads } from './conversation-roads';
import { syncRoads } from './history-roads';
import { lateEventsRoads } from './late-events-roads';
import { repairRoads } from './repair-roads';
import type { Road } from './road';
import { settlementRoads } from './settlement-roads';

/** By the workflow's name without `Workflow`, which begins the file's name. */
export const roads: Record<string, Record<string, Road>> = {
  conversation: { ...conversationRoads, ...conversationOfCallRoads },
  call: callRoads,
  callback: callbackRoads,
  repair: repairRoads,
  lateEvents: lateEventsRoads,
  retention: retentionRoads,
  settlement: settlementRoads,
  sync: syncRoads,
};
