/** Processes webhook events that have waited for the database (./late-events.ts), as their webhook would. */
import type { CallTimings, LateEvents } from '../../workflows/contract';
import type { Sender } from '../http/webhook-ingress';
import { isRefused } from '../platform/database-errors';
import { readKapsoBody } from '../providers/kapso/events';
import { readVapiBody } from '../providers/vapi/events';
import { lettersOf } from './dead-letters';
import { type HandOverDependencies, handOver } from './hand-over';
import { handOverFact } from './vapi';

/** Processes such events. @throws NotStoredError, or the database's error, if they cannot be stored now */
export type TakeLateEvents = (events: LateEvents) => Promise<void>;

export function createLateEventTaker(settings: CallTimings, dependencies: HandOverDependencies): TakeLateEvents {
  return async ({ source, body, event, workspaceId }) => {
    const sender = workspaceId === undefined ? undefined : { workspaceId };
    const rawBody = 'base64' in body ? Buffer.from(body.base64, 'base64') : Buffer.from(JSON.stringify(body.json));
    switch (source) {
      case 'kapso':
        return await takeKapso({ rawBody, eventName: event, sender }, dependencies);
      case 'vapi':
        return await takeVapi({ rawBody, sender }, settings, dependencies);
    }
  };
}

interface LateBody {
  rawBody: Buffer;
  sender: Sender | undefined;
}

async function takeKapso(
  { rawBody, eventName, sender }: LateBody & { eventName: string | undefined },
  dependencies: HandOverDependencies,
): Promise<void> {
  const events = readKapsoBody(rawBody, eventName);
  const unreadable = events.filter((event) => event.type === 'unreadable');
  await handOver(
    {
      messages: events.filter((event) => event.type === 'message'),
      statuses: events.filter((event) => event.type === 'status'),
      letters: lettersOf(unreadable, { rawBody, eventName, sender }),
    },
    dependencies,
  );
}

async function takeVapi({ rawBody, sender }: LateBody, settings: CallTimings, dependencies: HandOverDependencies): Promise<void> {
  const message = readVapiBody(rawBody);
  const letter = (reason: 'unreadable' | 'record_refused', detail: string) =>
    handOver(
      { messages: [], statuses: [], letters: [{ source: 'vapi', reason, detail, body: JSON.parse(rawBody.toString()), ...sender }] },
      dependencies,
    );
  if (message.kind === 'unreadable') await letter('unreadable', message.detail);
  if (message.kind !== 'fact') return;
  try {
    await handOverFact(message, settings, dependencies, sender);
  } catch (error) {
    if (!isRefused(error)) throw error;
    await letter('record_refused', 'The database rejected a report about a call; its error is in the log.');
  }
}
