/**
 * The SDK may give a local activity the result of an earlier one, after a workflow task that timed out on a worker without CPU time
 * (workflows/own-results.ts). It was seen in histories of an overloaded cluster, and cannot be provoked at will: here the activity itself
 * returns what belongs to an earlier order, with the real workflow, Temporal and PostgreSQL.
 */
import { randomUUID } from 'node:crypto';
import { ApplicationFailure } from '@temporalio/activity';
import { withDatabaseFailures } from '../activities/database-failures';
import { withLabels } from '../activities/labels';
import { createRecordActivities, type RecordActivities } from '../activities/records';
import { sameForAll } from '../activities/services';
import { readSettings } from '../src/platform/config';
import { type Database, openDatabase } from '../src/platform/database';
import { createLogger } from '../src/platform/logger';
import { createLanguageModels } from '../src/providers/models/client';
import { loadIdentity } from '../src/record/identity';
import { CONVERSATION_WORKFLOW, conversationStart, messagesReceived } from '../workflows/contract';
import { type TestDatabase, testDatabase } from './support/engine';
import { eventually } from './support/expectations';
import { type InProcessWorker, startInProcessWorker } from './support/in-process-worker';
import { ANSWER_LIMITS, message, newPerson } from './support/recorder';

type Record = (order: object) => Promise<unknown>;

let database: TestDatabase;
let db: Database;
let worker: InProcessWorker;
/** Labelled results, in the order of the calls. */
const results: unknown[] = [];
/** Instead of recording, once. */
let instead: (() => Promise<unknown>) | undefined;

beforeAll(async () => {
  database = await testDatabase('late_result');
  db = openDatabase(database.url);
  const activities = createRecordActivities({
    db,
    identity: await loadIdentity(db.orm),
    logger: createLogger('test', 'silent'),
    services: sameForAll({ models: createLanguageModels(readSettings({})) }),
    limits: { modelAttemptMs: 1_000, turnMs: 1_000 },
    answerLimits: ANSWER_LIMITS,
  });
  const labelled = withLabels(withDatabaseFailures<RecordActivities>(activities));
  const recordInbound: Record = async (order) => {
    const other = instead;
    instead = undefined;
    const result = await (other === undefined ? (labelled.recordInbound as Record)(order) : other());
    results.push(result);
    return result;
  };
  worker = await startInProcessWorker({ ...labelled, recordInbound });
});

afterAll(async () => {
  await worker?.close();
  await db?.close();
  await database?.drop();
});

test.each([
  ['result', async () => results.at(-1)],
  [
    'refusal',
    async () => {
      const details = [{ resultLabel: 'recordInbound:another' }];
      throw ApplicationFailure.create({ type: 'RecordError.Refused', message: 'x', nonRetryable: true, details });
    },
  ],
])(
  'when recording a message ends with the %s of an earlier order, then it runs again, and the message is recorded',
  async (_what, other) => {
    const phoneNumberId = randomUUID();
    await db.orm.workspace.create({ data: { name: 'w', kapsoPhoneNumberId: phoneNumberId, settings: { create: {} } } });
    const { number: contact } = newPerson();
    const start = conversationStart({ phoneNumberId, contactKey: randomUUID(), taskQueue: worker.taskQueue });
    const receive = (text: string) =>
      worker.client.workflow.signalWithStart(CONVERSATION_WORKFLOW, {
        ...start,
        signal: messagesReceived,
        signalArgs: [{ contact, messages: [message(text)] }],
      });
    const texts = async () => {
      const rows = await db.orm.message.findMany({
        where: { workspace: { kapsoPhoneNumberId: phoneNumberId } },
        orderBy: { position: 'asc' },
      });
      return rows.map(({ text }) => text);
    };

    const handle = await receive('one');
    await eventually(async () => expect(await texts()).toEqual(['one']));
    instead = other;
    await receive('two');
    await eventually(async () => expect(await texts()).toEqual(['one', 'two']));
    expect(instead).toBeUndefined();
    await handle.terminate();
  },
);
