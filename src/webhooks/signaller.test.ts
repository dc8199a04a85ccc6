import { randomUUID } from 'node:crypto';
import { Client, Connection, ServiceError, type WorkflowClientInterceptor } from '@temporalio/client';
import { defineSignal } from '@temporalio/workflow';
import { testTemporal } from '../../test/support/engine';
import { startProxy } from '../../test/support/proxy';
import { createWorkflowSignaller, SIGNAL_TIMEOUT_MS, signalDeadlineMs, type WorkflowSignaller } from './signaller';

const said = defineSignal<[string]>('said');

let connection: Connection;
let temporal: Client;
/** The requests to Temporal, in order. */
let asked: string[] = [];
const started: string[] = [];

const listening: WorkflowClientInterceptor = {
  async signal(input, next) {
    asked.push('signal');
    await next(input);
  },
  async signalWithStart(input, next) {
    asked.push('signalWithStart');
    return await next(input);
  },
};

beforeAll(async () => {
  const { address, namespace } = testTemporal();
  connection = await Connection.connect({ address });
  temporal = new Client({ connection, namespace, interceptors: { workflow: [listening] } });
});

beforeEach(() => {
  asked = [];
});

afterAll(async () => {
  await Promise.allSettled(started.map((workflowId) => temporal.workflow.getHandle(workflowId).terminate('the test is over')));
  await connection?.close();
});

/** Nobody works on its task queue: what matters here is what Temporal has stored. */
function freshWorkflow(): { workflowId: string; taskQueue: string } {
  const workflowId = `signaller-${randomUUID()}`;
  started.push(workflowId);
  return { workflowId, taskQueue: 'nobody-works-here' };
}

const tell = (signaller: WorkflowSignaller, start: ReturnType<typeof freshWorkflow>, fact: string) =>
  signaller.tell({ workflowType: 'listener', start, signal: said, fact }, signalDeadlineMs());

/** What the workflow's newest run was told. */
async function toldTo(workflowId: string): Promise<{ facts: string[]; runId: string }> {
  const handle = temporal.workflow.getHandle(workflowId);
  const { runId } = await handle.describe();
  const { events } = await handle.fetchHistory();
  const facts = (events ?? []).flatMap(({ workflowExecutionSignaledEventAttributes: signaled }) =>
    (signaled?.input?.payloads ?? []).map(({ data }) => JSON.parse(Buffer.from(data ?? []).toString()) as string),
  );
  return { facts, runId };
}

test('when a workflow is signalled again, then it gets a plain signal', async () => {
  const signaller = createWorkflowSignaller(temporal);
  const workflow = freshWorkflow();
  for (const fact of ['one', 'two', 'three']) await tell(signaller, workflow, fact);
  expect(asked).toEqual(['signalWithStart', 'signal', 'signal']);
  expect((await toldTo(workflow.workflowId)).facts).toEqual(['one', 'two', 'three']);
});

test('when the workflow has ended since, then a new one is started with the signal', async () => {
  const signaller = createWorkflowSignaller(temporal);
  const workflow = freshWorkflow();
  await tell(signaller, workflow, 'one');
  const before = await toldTo(workflow.workflowId);
  await temporal.workflow.getHandle(workflow.workflowId).terminate('the session is over');
  for (const fact of ['two', 'three']) await tell(signaller, workflow, fact);
  expect(asked).toEqual(['signalWithStart', 'signal', 'signalWithStart', 'signal']);
  const after = await toldTo(workflow.workflowId);
  expect(after.facts).toEqual(['two', 'three']);
  expect(after.runId).not.toBe(before.runId);
});

test('when another process started it, then the running workflow gets the signal', async () => {
  const workflow = freshWorkflow();
  await tell(createWorkflowSignaller(temporal), workflow, 'one');
  await tell(createWorkflowSignaller(temporal), workflow, 'two');
  expect(asked).toEqual(['signalWithStart', 'signalWithStart']);
  expect((await toldTo(workflow.workflowId)).facts).toEqual(['one', 'two']);
});

test('when several signals find at once that a workflow has ended, then none of them is lost', async () => {
  const signaller = createWorkflowSignaller(temporal);
  const workflow = freshWorkflow();
  await tell(signaller, workflow, 'one');
  await temporal.workflow.getHandle(workflow.workflowId).terminate('the session is over');
  await Promise.all(['two', 'three', 'four'].map((fact) => tell(signaller, workflow, fact)));
  expect((await toldTo(workflow.workflowId)).facts.sort()).toEqual(['four', 'three', 'two']);
});

test('when more workflows were signalled than are remembered, then the one idle for longest is forgotten', async () => {
  const signaller = createWorkflowSignaller(temporal, { mostRemembered: 2 });
  const [first, second, third] = [freshWorkflow(), freshWorkflow(), freshWorkflow()];
  for (const workflow of [first, second, first, third]) await tell(signaller, workflow, 'something');
  asked = [];
  await tell(signaller, first, 'again');
  await tell(signaller, second, 'again');
  expect(asked).toEqual(['signal', 'signalWithStart']);
});

test('when a workflow was not signalled for the length of a session, then no plain signal is tried first', async () => {
  const signaller = createWorkflowSignaller(temporal, { guessForMs: 0 });
  const workflow = freshWorkflow();
  for (const fact of ['one', 'two']) await tell(signaller, workflow, fact);
  expect(asked).toEqual(['signalWithStart', 'signalWithStart']);
  expect((await toldTo(workflow.workflowId)).facts).toEqual(['one', 'two']);
});

test('when Temporal hangs, then the call times out, and the workflow does not count as ended', async () => {
  const { address, namespace } = testTemporal();
  const proxy = await startProxy(address);
  const ownConnection = await Connection.connect({ address: `127.0.0.1:${proxy.port}` });
  try {
    const signaller = createWorkflowSignaller(
      new Client({ connection: ownConnection, namespace, interceptors: { workflow: [listening] } }),
    );
    const workflow = freshWorkflow();
    await tell(signaller, workflow, 'one');
    proxy.hang();
    const hungAtMs = Date.now();
    await expect(tell(signaller, workflow, 'two')).rejects.toBeInstanceOf(ServiceError);
    expect(Date.now() - hungAtMs).toBeLessThan(2 * SIGNAL_TIMEOUT_MS);
    // A signal that got no answer may have been stored: sent again as another one, it would be told twice.
    expect(asked).toEqual(['signalWithStart', 'signal']);
  } finally {
    await ownConnection.close();
    await proxy.close();
  }
});
