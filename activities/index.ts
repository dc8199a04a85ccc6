/** All activities, created once per worker from its dependencies. */
import type { BackgroundWork } from '../src/platform/background';
import type { Database } from '../src/platform/database';
import type { Logger } from '../src/platform/logger';
import type { WorkerMetrics } from '../src/platform/metrics';
import type { CallbackClient } from '../src/providers/callback/client';
import type { Identity } from '../src/record/identity';
import type { AnswerLimits } from '../src/record/unanswered';
import { type CallbackActivities, createCallbackActivities } from './callback';
import { withDatabaseFailures } from './database-failures';
import { createHandOverActivities, type HandOverActivities } from './hand-over';
import { createHistoryActivities, type HistoryActivities } from './history';
import { withLabels } from './labels';
import { createLateEventActivities, type LateEventActivities } from './late-events';
import { createModelActivities, type ModelActivities } from './model';
import { createRecordActivities, type RecordActivities, type TurnLimits } from './records';
import { createRepairActivities, type RepairActivities, type RepairDependencies } from './repair';
import { createRetentionActivities, type RetentionActivities } from './retention';
import type { ServicesByWorkspace } from './services';
import { createVoiceActivities, type VoiceActivities } from './voice';
import { createWhatsAppActivities, type WhatsAppActivities } from './whatsapp';

export type { CallEnding } from '../src/record/call-outcome';
export type { Elsewhere, RecordOrder } from '../src/record/inbound';
export type { CallbackDelivery } from './callback';
export type { ModelFailureDetails } from './failures';
export type { Draft, DraftOrder, MovedTurn, WithheldTurn } from './model';
export type { Recorded, TurnLimits } from './records';
export type { KapsoAccount, RepairedSlice, RepairPlan } from './repair';
export type { CallLook, Conclusion, DialVerdict } from './voice';

export interface ActivityDependencies extends RepairDependencies {
  db: Database;
  identity: Identity;
  background: BackgroundWork;
  services: ServicesByWorkspace;
  logger: Logger;
  metrics: WorkerMetrics;
  limits: TurnLimits;
  answerLimits: AnswerLimits;
  taskQueue: string;
  /** Whether repair runs. */
  repairs: boolean;
  followUpText: string | undefined;
  callbacks: CallbackClient;
  /** Folder for archived calls; absolute path. */
  archiveDir: string;
}

export type Activities = RecordActivities &
  HandOverActivities &
  LateEventActivities &
  ModelActivities &
  WhatsAppActivities &
  VoiceActivities &
  CallbackActivities &
  RepairActivities &
  HistoryActivities &
  RetentionActivities;

/** Called only by the worker. */
export function createActivities(dependencies: ActivityDependencies): Activities {
  const activities = withDatabaseFailures({
    ...createRecordActivities(dependencies),
    ...createHandOverActivities(dependencies),
    ...createLateEventActivities(dependencies),
    ...createModelActivities(dependencies),
    ...createWhatsAppActivities(dependencies),
    ...createVoiceActivities(dependencies),
    ...createCallbackActivities(dependencies),
    ...createRepairActivities(dependencies),
    ...createHistoryActivities(dependencies),
    ...createRetentionActivities(dependencies),
  });
  return withLabels(activities);
}
