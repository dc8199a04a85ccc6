/** Two releases of the worker side by side, and the commands of docs/production.md that move work from one to the other. */
import { execFile } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { historyToJSON } from '@temporalio/common/lib/proto-utils';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import { workflowBundle } from '../src/processes/workflow-bundle';
import { type Receiver, startReceiver } from '../src/sandbox/receiver';
import { callbackWorkflowId, callWorkflowId, conversationWorkflowId, messagesReceived, searchAttributes } from '../workflows/contract';
import { newNumber, placeCall, resultOf } from './support/calls';
import { testTemporal } from './support/engine';
import { balance, eventually, newPhone, outcomesOf, workflowIdOf } from './support/expectations';
import { makeOtherRelease, type OtherRelease } from './support/release';
import { startSuite } from './support/suite';
import { type RunningProcess, type System, startProcess } from './support/system';

const DEPLOYMENT = `releases-${randomBytes(4).toString('hex')}`;
const PEOPLE = 8;
/** Longer than everything that must happen before the first conversations end. */
const SESSION_TIMEOUT_MS = 10_000;
const TALK_MS = 5_000;

let receiver: Receiver;
let system: System;
let otherRelease: OtherRelease;
let older: RunningProcess;

beforeAll(async () => {
  Runtime.install({ logger: new DefaultLogger('ERROR') });
  receiver = await startReceiver();
  otherRelease = await makeOtherRelease();
  system = await startSuite('releases', {
    workers: 0,
    environment: () => ({
      WORKER_VERSIONING: 'true',
      WORKER_DEPLOYMENT_NAME: DEPLOYMENT,
      SESSION_TIMEOUT_MS: String(SESSION_TIMEOUT_MS),
      CALLBACK_ALLOWED_HOSTS: new URL(receiver.url).host,
      CALLBACK_SIGNING_SECRET: `whsec_${randomBytes(32).toString('base64')}`,
    }),
  });
});

afterAll(async () => {
  await older?.kill();
  await system?.close();
  await receiver?.close();
  await otherRelease?.remove();
});

/** Runs the one command of docs/production.md that has all the words, with `parley` replaced by our deployment. Returns what it prints. */
async function runDocumented(words: string[], builds: { OLD?: string; NEW?: string } = {}): Promise<string> {
  const commands = readFileSync('docs/production.md', 'utf8')
    .split('\n')
    .map((line) => line.trim());
  const [command, ...others] = commands.filter((line) => line.startsWith('temporal ') && words.every((word) => line.includes(word)));
  if (command === undefined || others.length > 0) throw new Error(`not one command has ${words.join(' and ')}`);
  const { address, cliPath } = testTemporal();
  const script = `temporal() { "$TEMPORAL_CLI" "$@"; }; ${command.replaceAll('parley', DEPLOYMENT)}`;
  const { stdout } = await promisify(execFile)('bash', ['-euc', script], {
    env: { HOME: '/nonexistent', TEMPORAL_CLI: cliPath, TEMPORAL_ADDRESS: address, ...builds },
  });
  return stdout;
}

/** The server takes the command once a poll of the version has reached it. */
async function makeCurrent(buildId: string): Promise<void> {
  await eventually(() => runDocumented(['set-current-version', '$NEW'], { NEW: buildId }));
}

async function buildIdOf(worker: RunningProcess): Promise<string> {
  return (JSON.parse(await worker.line('worker ready')) as { buildId: string }).buildId;
}

interface Run {
  workflowId: string;
  runId: string;
  /** Build ids of the workers that completed its workflow tasks, each once. */
  builds: string[];
  /** Why workflow tasks failed. Commands that a signal has overtaken are decided again, as they must be. */
  failures: string[];
}

/** Every run of ours, ended or not. */
async function allRuns(): Promise<Run[]> {
  const runs: Run[] = [];
  for await (const { workflowId, runId } of system.temporal.workflow.list({ query: `TaskQueue = '${system.taskQueue}'` }))
    runs.push(await readRun(workflowId, runId));
  return runs;
}

async function readRun(workflowId: string, runId?: string): Promise<Run> {
  const handle = system.temporal.workflow.getHandle(workflowId, runId);
  const { events } = JSON.parse(historyToJSON(await handle.fetchHistory()));
  const attributes = events.flatMap((event: Record<string, unknown>) => Object.values(event).filter((value) => typeof value === 'object'));
  return {
    workflowId,
    runId: runId ?? (await handle.describe()).runId,
    builds: [
      ...new Set<string>(
        attributes.flatMap((values: { deploymentVersion?: { buildId: string } }) => values.deploymentVersion?.buildId ?? []),
      ),
    ],
    failures: attributes
      .flatMap((values: { cause?: string }) => values.cause ?? [])
      .filter((cause: string) => cause !== 'WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND'),
  };
}

async function write(phone: string, text: string): Promise<void> {
  await system.sandbox.kapso.customerSends({ from: phone, text });
}

/** A message to a conversation that continues as new after almost every turn. */
async function writeToLongConversation(contactKey: string, phone: string, text: string): Promise<string> {
  const { phoneNumberId, taskQueue } = system;
  const workflowId = conversationWorkflowId(phoneNumberId, contactKey);
  const message = { id: randomUUID(), providerMessageId: `wamid.${randomUUID()}`, kind: 'text', text, sentAtMs: Date.now() };
  await system.temporal.workflow.signalWithStart('conversationWorkflow', {
    ...{ workflowId, taskQueue, args: [{ phoneNumberId, contactKey, maxHistoryEvents: 12 }] },
    ...{ signal: messagesReceived, signalArgs: [{ contact: { phone }, messages: [message] }] },
    searchAttributes: { [searchAttributes.workspace]: [phoneNumberId] },
  });
  return workflowId;
}

test('when a new release takes over while people write and talk, then each workflow stays with its release, and none fails', async () => {
  older = await startProcess('older worker', otherRelease.workerEntry, system.environment, 'worker ready');
  const newer = await system.startWorker();
  const [oldBuild, newBuild] = [await buildIdOf(older), await buildIdOf(newer)];
  expect(oldBuild).not.toBe(newBuild);
  await makeCurrent(oldBuild);

  const early = Array.from({ length: PEOPLE }, newPhone);
  const long = newPhone();
  const to = newNumber();
  system.sandbox.vapi.play({ when: ({ number }) => number === to, play: 'answered', talkMs: TALK_MS });
  receiver.answers.push(503);
  const { callId } = (await placeCall(system, { to, callbackUrl: receiver.url })).body;
  await Promise.all([...early.map((phone) => write(phone, 'hello')), writeToLongConversation('long', long, 'hello')]);
  await Promise.all([...early, long].map((phone) => outcomesOf(system, phone, 1)));
  await system.sandbox.vapi.waitForStatus(callId, 'in-progress', 15_000);

  await eventually(() => runDocumented(['set-ramping-version'], { NEW: newBuild }));
  expect(await runDocumented(['deployment describe'])).toMatch(new RegExp(`RampingVersionBuildID +${newBuild}`));
  await makeCurrent(newBuild);
  expect(await runDocumented(['deployment describe'])).toMatch(new RegExp(`CurrentVersionBuildID +${newBuild}`));
  const late = Array.from({ length: PEOPLE }, newPhone);
  await Promise.all([...early, ...late].map((phone) => write(phone, 'and one more')));
  for (const [index, text] of ['and one more', 'and another', 'that was all'].entries()) {
    await writeToLongConversation('long', long, text);
    await outcomesOf(system, long, index + 2);
  }
  await Promise.all(early.map((phone) => outcomesOf(system, phone, 2)));
  await Promise.all(late.map((phone) => outcomesOf(system, phone, 1)));
  await resultOf(system, callId);
  await system.temporal.workflow.getHandle(callbackWorkflowId(callId)).result();

  const buildsOf = async (workflowIds: string[]) => (await Promise.all(workflowIds.map((id) => readRun(id)))).map(({ builds }) => builds);
  const workflowIdsOf = async (phones: string[]) => await Promise.all(phones.map((phone) => workflowIdOf(system, phone)));
  expect(await buildsOf(await workflowIdsOf(early))).toEqual(early.map(() => [oldBuild]));
  expect(await buildsOf(await workflowIdsOf(late))).toEqual(late.map(() => [newBuild]));
  expect(await buildsOf([callWorkflowId(callId), callbackWorkflowId(callId)])).toEqual([[oldBuild], [oldBuild]]);

  const before = await readRun((await workflowIdsOf(early))[0] ?? '');
  await eventually(async () => {
    expect(await runDocumented(['workflow count'], { OLD: oldBuild })).toContain('Total: 0');
  }, 3 * SESSION_TIMEOUT_MS);
  expect(await older.stop()).toBe(0);

  await Promise.all(early.map((phone) => write(phone, 'hello again')));
  await Promise.all(early.map((phone) => outcomesOf(system, phone, 3)));
  expect(await buildsOf(await workflowIdsOf(early))).toEqual(early.map(() => [newBuild]));

  const runs = await allRuns();
  expect(runs.filter(({ workflowId }) => workflowId === conversationWorkflowId(system.phoneNumberId, 'long')).length).toBeGreaterThan(3);
  expect(runs.filter(({ builds, failures }) => builds.length !== 1 || failures.length > 0)).toEqual([]);
  await system.sandbox.kapso.settled();
  for (const phone of early) expect(system.sandbox.kapso.visibleTo(phone)).toHaveLength(3);
  for (const phone of late) expect(system.sandbox.kapso.visibleTo(phone)).toHaveLength(1);
  expect(system.sandbox.kapso.visibleTo(long)).toHaveLength(4);
  await balance(system.db);

  // It was no sham: the one release cannot continue what the other began.
  const history = await system.temporal.workflow.getHandle(before.workflowId, before.runId).fetchHistory();
  const replay = Worker.runReplayHistory({ workflowBundle: await workflowBundle() }, history, before.workflowId);
  await expect(replay).rejects.toThrow(/[Nn]ondeterminism/);
  await newer.stop();
}, 120_000);

test('when the workers of a version are gone before its conversations have ended, then one command brings them to the current version', async () => {
  const [gone, stays] = await Promise.all(['gone', 'stays'].map((buildId) => system.startWorker({ WORKER_BUILD_ID: buildId })));
  await makeCurrent('gone');
  const phone = newPhone();
  await write(phone, 'hello');
  await outcomesOf(system, phone, 1);
  await makeCurrent('stays');
  await gone?.kill();
  await write(phone, 'anybody there?');
  await runDocumented(['update-options'], { OLD: 'gone' });
  expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'answered']);
  const run = await readRun(await workflowIdOf(system, phone));
  expect(run).toMatchObject({ builds: ['gone', 'stays'], failures: [] });
  await stays?.stop();
});

test('when versioning is given up and taken up again, then the work goes to the workers without it, and from there to the current version', async () => {
  const plain = await system.startWorker({ WORKER_VERSIONING: 'false', WORKER_BUILD_ID: 'plain' });
  await runDocumented(['--unversioned']);
  const phone = newPhone();
  await write(phone, 'hello');
  expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
  const unversioned = await readRun(await workflowIdOf(system, phone));
  expect(unversioned).toMatchObject({ builds: [], failures: [] });

  const first = await system.startWorker({ WORKER_BUILD_ID: 'first' });
  await makeCurrent('first');
  await plain.stop();
  await write(phone, 'and one more');
  expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'answered']);
  const run = await readRun(await workflowIdOf(system, phone));
  expect(run).toMatchObject({ builds: ['first'], failures: [] });
  await first.stop();
});
