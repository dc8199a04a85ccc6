/**
 * The activities as workflows call them, grouped by policy. Every timeout and retry number stands here, with its reason.
 */
import { proxyActivities, proxyLocalActivities } from '@temporalio/workflow';
import type { Activities } from '../activities';

/**
 * Steps that are idempotent by their rows run as local activities: a completed one may be forgotten when the
 * worker dies before its workflow task ends, and runs again. They never give up: only PostgreSQL being away makes
 * them fail, and then the message waits. From 5 s on, the wait is a timer that an operator can see.
 */
const untilTheDatabaseIsBack = { initialInterval: '500 ms', backoffCoefficient: 2, maximumInterval: '20 s' } as const;

export const records = proxyLocalActivities<
  Pick<Activities, 'recordInbound' | 'recordFailedTurn' | 'requestAttention' | 'clearAttention' | 'recordDoubt'>
>({
  // A few indexed statements; 5 s is a database in trouble.
  startToCloseTimeout: '5 s',
  localRetryThreshold: '5 s',
  retry: untilTheDatabaseIsBack,
});

export const outbox = proxyLocalActivities<Pick<Activities, 'sendReply' | 'checkSend'>>({
  // 8 s for Kapso's answer (see activities/whatsapp.ts) and 2 s for the row before and after it.
  startToCloseTimeout: '10 s',
  localRetryThreshold: '5 s',
  retry: untilTheDatabaseIsBack,
});

export const settlement = proxyActivities<Pick<Activities, 'lookUpSend'>>({
  // Some pages of Kapso's message list. Three attempts for a hiccup; the workflow itself looks again later.
  startToCloseTimeout: '15 s',
  retry: { initialInterval: '1 s', backoffCoefficient: 2, maximumInterval: '10 s', maximumAttempts: 3 },
});

export const owners = proxyActivities<Pick<Activities, 'handOverMessages'>>({
  // A signal or a few. Tried until Temporal takes them: a message that is given up here is lost.
  startToCloseTimeout: '10 s',
  retry: { initialInterval: '200 ms', backoffCoefficient: 2, maximumInterval: '20 s' },
});

export const workspaces = proxyActivities<Pick<Activities, 'awaitWorkspace'>>({
  // One SELECT. Every attempt that finds nothing fails and is shown as a pending activity with its reason;
  // a minute is how long an operator who has added the workspace waits at most.
  startToCloseTimeout: '10 s',
  retry: { initialInterval: '5 s', backoffCoefficient: 2, maximumInterval: '60 s' },
});

export const model = proxyActivities<Pick<Activities, 'generateReply'>>({
  // The caller sets the timeout: it is a setting of the turn.
  startToCloseTimeout: '35 s',
  // A killed worker is noticed after this long; the activity reports every second.
  heartbeatTimeout: '5 s',
  // For conversations started by 0.1 (walk-once.ts). Newer ones make single attempts and choose the next provider themselves (walk.ts).
  retry: { initialInterval: '500 ms', backoffCoefficient: 2, maximumInterval: '5 s', maximumAttempts: 3 },
});

export const calls = proxyLocalActivities<Pick<Activities, 'concludeCall' | 'requeueCall'>>({
  // Two indexed statements; idempotent by the row.
  startToCloseTimeout: '5 s',
  localRetryThreshold: '5 s',
  retry: untilTheDatabaseIsBack,
});

export const dialling = proxyActivities<Pick<Activities, 'dialCall'>>({
  // 30 s for Vapi's answer (see activities/voice.ts), and the row before and after it. Once at most: a second attempt could
  // ring the phone twice, and a heartbeat would only tell earlier what cannot be repeated.
  startToCloseTimeout: '45 s',
  retry: { maximumAttempts: 1 },
});

export const voice = proxyActivities<Pick<Activities, 'findCall' | 'lookAtCall' | 'endCall'>>({
  // One request to Vapi of 10 s at most, and a row. Four attempts bridge an outage of a minute; the workflow asks again later.
  startToCloseTimeout: '20 s',
  retry: { initialInterval: '2 s', backoffCoefficient: 3, maximumInterval: '20 s', maximumAttempts: 4 },
});

export const telling = proxyActivities<Pick<Activities, 'tellConversation'>>({
  // Some statements and one signal. Whoever waits for the call's result waits for this too, so it is given up after two minutes.
  startToCloseTimeout: '10 s',
  scheduleToCloseTimeout: '2 minutes',
  retry: { initialInterval: '500 ms', backoffCoefficient: 2, maximumInterval: '20 s' },
});

export const callbacks = proxyActivities<Pick<Activities, 'deliverCallback'>>({
  // 15 s for the receiver's answer (see activities/callback.ts), and 5 s for reading the row.
  startToCloseTimeout: '20 s',
  // A receiver that is away for a night is told in the morning; a result that is older helps nobody, and a person must look.
  scheduleToCloseTimeout: '24 hours',
  // At once, because a flow waits; then ever more rarely, up to four times an hour, so that an outage costs a hundred attempts.
  retry: { initialInterval: '1 s', backoffCoefficient: 2, maximumInterval: '15 minutes' },
});

export const callbackRecords = proxyActivities<Pick<Activities, 'recordFailedCallback'>>({
  // One UPDATE; tried until the database is back.
  startToCloseTimeout: '10 s',
  retry: { initialInterval: '1 s', backoffCoefficient: 2, maximumInterval: '60 s' },
});

export const retention = proxyActivities<Pick<Activities, 'findDueCalls' | 'findOrphans' | 'closeUnplaced' | 'followAgain'>>({
  // One pass over an index, or one request to Temporal for each call of a batch.
  startToCloseTimeout: '5 minutes',
  heartbeatTimeout: '60 s',
  // Over before the next day's run; a reason that stays is seen there again.
  scheduleToCloseTimeout: '6 hours',
  retry: { initialInterval: '5 s', backoffCoefficient: 2, maximumInterval: '10 minutes' },
});

export const archives = proxyActivities<Pick<Activities, 'settleArchives' | 'archiveMonth' | 'deleteMonth'>>({
  // A month's calls, batch by batch. Each batch is reported; a batch takes two statements of at most 15 s each.
  startToCloseTimeout: '2 hours',
  heartbeatTimeout: '60 s',
  // A disk that is full may be mended meanwhile.
  scheduleToCloseTimeout: '6 hours',
  retry: { initialInterval: '5 s', backoffCoefficient: 2, maximumInterval: '10 minutes' },
});
