/** Everything that workflows can have done, built once per worker from its dependencies. */
import type { Database } from '../src/database';
import type { Logger } from '../src/logger';
import type { WorkerMetrics } from '../src/metrics';
import type { KapsoClient } from '../src/providers/kapso';
import type { LanguageModels } from '../src/providers/llm';
import { createModelActivities, type ModelActivities } from './model';
import { createRecordActivities, type RecordActivities, type TurnLimits } from './records';
import { createWhatsAppActivities, type WhatsAppActivities } from './whatsapp';

export type { Draft, DraftOrder } from './model';
export type { Recorded, RecordOrder, TurnLimits } from './records';
export type { SendVerdict } from './whatsapp';

export interface ActivityDependencies {
  db: Database;
  kapso: KapsoClient;
  models: LanguageModels;
  logger: Logger;
  metrics: WorkerMetrics;
  limits: TurnLimits;
}

export type Activities = RecordActivities & ModelActivities & WhatsAppActivities;

/** The worker is the one place that calls this. */
export function createActivities(dependencies: ActivityDependencies): Activities {
  return { ...createRecordActivities(dependencies), ...createModelActivities(dependencies), ...createWhatsAppActivities(dependencies) };
}
