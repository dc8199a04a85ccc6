/** Activity proxies, grouped by policy. All timeouts and retry policies are here, with their reasons. */
import { proxyActivities, proxyLocalActivities } from '@temporalio/workflow';
import type { Activities } from '../activities';
import { checked } from './own-results';

/**
 * Steps that are idempotent by their rows run as local activities: if the worker dies before its workflow task ends, a completed one may
 * run again. They are retried for ever, because only a database outage makes them retry, and then the message waits. From 5 s on, the
 * wait is a timer that an operator can see.
 */
const untilTheDatabaseIsBack = { initialInterval: '500 ms', backoffCoefficient: 2, maximumInterval: '20 s' } as const;

type RecordSteps = Pick<
  Activities,
  'recordInbound' | 'recordFailedTurn' | 'requestAttention' | 'clearAttention' | 'recordDoubt' | 'changeMode' | 'resumeConversation'
>;

export const records = checked<RecordSteps>(
  proxyLocalActivities<RecordSteps>({
    // A few indexed statements; if they take 5 s, the database is in trouble.
    startToCloseTimeout: '5 s',
    localRetryThreshold: '5 s',
    retry: untilTheDatabaseIsBack,
  }),
  {
    recordInbound: ({ deliveries }) => deliveries.flatMap(({ messages }) => messages.map(({ id }) => id)),
    recordFailedTurn: ({ messageIds }) => messageIds,
    requestAttention: ({ conversationId, kind, subject }) => [conversationId, kind, subject],
    clearAttention: ({ conversationId, kinds }) => [conversationId, ...kinds],
    recordDoubt: ({ messageId }) => [messageId],
    changeMode: ({ action, order }) => [action, order.conversationId, order.by],
    resumeConversation: ({ conversationId, reopenIds = [] }) => [conversationId, ...reopenIds],
  },
);

type OutboxSteps = Pick<Activities, 'sendReply' | 'checkSend'>;

export const outbox = checked<OutboxSteps>(
  proxyLocalActivities<OutboxSteps>({
    // 8 s for Kapso's response (see activities/whatsapp.ts) and 2 s for updating the row before and after.
    startToCloseTimeout: '10 s',
    localRetryThreshold: '5 s',
    retry: untilTheDatabaseIsBack,
  }),
  { sendReply: ({ messageId }) => [messageId], checkSend: ({ messageId }) => [messageId] },
);

export const settlement = proxyActivities<Pick<Activities, 'lookUpSend'>>({
  // A few pages of Kapso's message list. Three attempts bridge a hiccup; the workflow tries again later.
  startToCloseTimeout: '15 s',
  retry: { initialInterval: '1 s', backoffCoefficient: 2, maximumInterval: '10 s', maximumAttempts: 3 },
});

export const owners = proxyActivities<Pick<Activities, 'handOverMessages'>>({
  // A signal or a few. Tried until Temporal takes them: a message that is given up here is lost.
  startToCloseTimeout: '10 s',
  retry: { initialInterval: '200 ms', backoffCoefficient: 2, maximumInterval: '20 s' },
});

export const workspaces = proxyActivities<Pick<Activities, 'awaitWorkspace'>>({
  // One SELECT. An attempt that finds nothing fails, so the UI shows a pending activity with its reason; an operator who has added the
  // workspace waits for a minute at most.
  startToCloseTimeout: '10 s',
  retry: { initialInterval: '5 s', backoffCoefficient: 2, maximumInterval: '60 s' },
});

export const spooling = proxyActivities<Pick<Activities, 'spoolEvents'>>({
  // One INSERT. Retried until the database is back: events that are given up here are lost.
  startToCloseTimeout: '10 s',
  retry: { initialInterval: '500 ms', backoffCoefficient: 2, maximumInterval: '20 s' },
});

export const model = proxyActivities<Pick<Activities, 'generateReply'>>({
  // The caller sets the timeout, which is a setting of the turn.
  startToCloseTimeout: '35 s',
  // How soon a killed worker is noticed. The first heartbeat is due after 10.5 s (activities/model.ts), so a model that answers within 10 s
  // costs none; a shorter timeout would cost an action of Temporal Cloud for most replies.
  heartbeatTimeout: '12 s',
  // For conversations started by 0.1 (walk-once.ts). Newer ones make single attempts and choose the next provider themselves (walk.ts).
  retry: { initialInterval: '500 ms', backoffCoefficient: 2, maximumInterval: '5 s', maximumAttempts: 3 },
});

type CallSteps = Pick<Activities, 'concludeCall' | 'requeueCall'>;

export const calls = checked<CallSteps>(
  proxyLocalActivities<CallSteps>({
    // Two indexed statements; idempotent by the row.
    startToCloseTimeout: '5 s',
    localRetryThreshold: '5 s',
    retry: untilTheDatabaseIsBack,
  }),
  { concludeCall: ({ callId }) => [callId], requeueCall: ({ callId, providerCallId }) => [callId, providerCallId] },
);

export const dialling = proxyActivities<Pick<Activities, 'dialCall'>>({
  // 30 s for Vapi's response (see activities/voice.ts), and updating the row before and after. At most once: a second attempt could ring
  // the phone twice. A heartbeat would only report earlier what cannot be retried.
  startToCloseTimeout: '45 s',
  retry: { maximumAttempts: 1 },
});

export const voice = proxyActivities<Pick<Activities, 'findCall' | 'lookAtCall' | 'endCall'>>({
  // One request to Vapi of at most 10 s, and a row. Four attempts bridge an outage of a minute; the workflow tries again later.
  startToCloseTimeout: '20 s',
  retry: { initialInterval: '2 s', backoffCoefficient: 3, maximumInterval: '20 s', maximumAttempts: 4 },
});

export const telling = proxyActivities<Pick<Activities, 'tellConversation'>>({
  // A few statements and a signal. Whoever waits for the call's result also waits for this, so it gives up after two minutes.
  startToCloseTimeout: '10 s',
  scheduleToCloseTimeout: '2 minutes',
  retry: { initialInterval: '500 ms', backoffCoefficient: 2, maximumInterval: '20 s' },
});

export const callbacks = proxyActivities<Pick<Activities, 'deliverCallback'>>({
  // 15 s for the receiver's response (see activities/callback.ts), and 5 s for reading the row.
  startToCloseTimeout: '20 s',
  // A receiver that is down overnight gets the result in the morning; an older result is useless, and a person must look.
  scheduleToCloseTimeout: '24 hours',
  // Quickly at first, because a flow is waiting; then less and less often, down to four times an hour: an outage costs about a hundred attempts.
  retry: { initialInterval: '1 s', backoffCoefficient: 2, maximumInterval: '15 minutes' },
});

export const callbackRecords = proxyActivities<Pick<Activities, 'recordFailedCallback'>>({
  // One UPDATE; retried until the database is back.
  startToCloseTimeout: '10 s',
  retry: { initialInterval: '1 s', backoffCoefficient: 2, maximumInterval: '60 s' },
});

export const retention = proxyActivities<
  Pick<
    Activities,
    | 'findDueCalls'
    | 'findOrphans'
    | 'closeUnplaced'
    | 'followAgain'
    | 'deleteDeadLetters'
    | 'deleteExpired'
    | 'countDeadLetters'
    | 'countExpired'
  >
>({
  // One pass over an index, a request to Temporal for each call of a batch, or batches, each reported.
  startToCloseTimeout: '5 minutes',
  heartbeatTimeout: '60 s',
  // Ends before the next day's run, which will meet a lasting problem again.
  scheduleToCloseTimeout: '6 hours',
  retry: { initialInterval: '5 s', backoffCoefficient: 2, maximumInterval: '10 minutes' },
});

export const archives = proxyActivities<Pick<Activities, 'settleArchives' | 'archiveMonth' | 'deleteMonth'>>({
  // A month's calls, in batches, with a heartbeat for each; a batch takes two statements of at most 15 s each.
  startToCloseTimeout: '2 hours',
  heartbeatTimeout: '60 s',
  // A full disk may be fixed in the meantime.
  scheduleToCloseTimeout: '6 hours',
  retry: { initialInterval: '5 s', backoffCoefficient: 2, maximumInterval: '10 minutes' },
});

export const repairs = proxyActivities<Pick<Activities, 'planRepair' | 'repairSlice'>>({
  // Up to a few hundred pages of Kapso's list, paced, each reported; a page takes 15 s at most.
  startToCloseTimeout: '30 minutes',
  heartbeatTimeout: '60 s',
  // Kapso's limit lasts for a minute. After a few attempts the pass ends, and the next one goes on from the same place.
  retry: { initialInterval: '2 s', backoffCoefficient: 2, maximumInterval: '30 s', maximumAttempts: 4 },
});

export const repairRecords = proxyActivities<Pick<Activities, 'noteRepairProblem'>>({
  // Two statements; tried until the database is back.
  startToCloseTimeout: '10 s',
  retry: { initialInterval: '1 s', backoffCoefficient: 2, maximumInterval: '60 s' },
});

export const history = proxyActivities<Pick<Activities, 'syncPage'>>({
  // A request to Kapso of at most 15 s after its turn, and a few statements per person of the page.
  startToCloseTimeout: '3 minutes',
  // How soon a killed worker is noticed: four heartbeats (activities/progress.ts).
  heartbeatTimeout: '20 s',
  // Nobody waits for it, so it outlasts any outage; an operator can cancel it.
  retry: { initialInterval: '2 s', backoffCoefficient: 2, maximumInterval: '5 minutes' },
});

export const historyRecords = proxyActivities<Pick<Activities, 'beginSync' | 'endSync'>>({
  // A few statements; tried until the database is back.
  startToCloseTimeout: '10 s',
  retry: { initialInterval: '1 s', backoffCoefficient: 2, maximumInterval: '60 s' },
});
