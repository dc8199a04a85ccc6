/** Everything that workflows can have done, built once per worker from its dependencies. */
import type { Database } from '../src/database';
import type { Logger } from '../src/logger';
import type { CallbackClient } from '../src/providers/callback';
import type { KapsoClient } from '../src/providers/kapso';
import type { LanguageModels } from '../src/providers/llm';
import { type CallbackActivities, createCallbackActivities } from './callback';
import { createModelActivities, type ModelActivities } from './model';
import { createRecordActivities, type RecordActivities, type TurnLimits } from './records';
import { createRetentionActivities, type RetentionActivities } from './retention';
import { createWhatsAppActivities, type WhatsAppActivities } from './whatsapp';

export type { CallbackDelivery } from './callback';
export type { Draft, DraftOrder } from './model';
export type { Recorded, RecordOrder, TurnLimits } from './records';
export type { SendVerdict } from './whatsapp';

export interface ActivityDependencies {
  db: Database;
  kapso: KapsoClient;
  models: LanguageModels;
  logger: Logger;
  limits: TurnLimits;
  callbacks: CallbackClient;
  /** Absolute; where calls are archived. */
  archiveDir: string;
}

export type Activities = RecordActivities & ModelActivities & WhatsAppActivities & CallbackActivities & RetentionActivities;

/** The worker is the one place that calls this. */
export function createActivities(dependencies: ActivityDependencies): Activities {
  return {
    ...createRecordActivities(dependencies),
    ...createModelActivities(dependencies),
    ...createWhatsAppActivities(dependencies),
    ...createCallbackActivities(dependencies),
    ...createRetentionActivities(dependencies),
  };
}
