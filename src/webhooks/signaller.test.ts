import { randomUUID } from 'node:crypto';
import { Client, Connection, type WorkflowClientInterceptor, WorkflowNotFoundError } from '@temporalio/client';
import { defineSignal } from '@temporalio/workflow';
import { testTemporal } from '../../test/support/engine';
import { createWorkflowSignaller, type WorkflowSignaller } from './signaller';

const said = defineSignal<[string]>('said');

let connection: Connection;
let temporal: Client;
/** What Temporal was asked for, in order. */
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
  for (const workflowId of started) await temporal.workflow.getHandle(workflowId).terminate('the test is over');
  await connection?.close();
});

/** Nobody works on its task queue: what matters here is what Temporal has stored. */
function freshWorkflow(): { workflowId: string; taskQueue: string } {
  const workflowId = `signaller-${randomUUID()}`;
  started.push(workflowId);
  return { workflowId, taskQueue: 'nobody-works-here' };
}

const tell = (signaller: WorkflowSignaller, start: ReturnType<typeof freshWorkflow>, fact: string) =>
  signaller.tell({ workflowType: 'listener', start, signal: said, fact });

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

test('when a workflow is told something again, then it gets a plain signal', async () => {
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

test('when another process told it before, then the running one gets the signal', async () => {
  const workflow = freshWorkflow();
  await tell(createWorkflowSignaller(temporal), workflow, 'one');
  await tell(createWorkflowSignaller(temporal), workflow, 'two');
  expect(asked).toEqual(['signalWithStart', 'signalWithStart']);
  expect((await toldTo(workflow.workflowId)).facts).toEqual(['one', 'two']);
});

test('when several are told at once that a workflow has ended, then none of their facts is lost', async () => {
  const signaller = createWorkflowSignaller(temporal);
  const workflow = freshWorkflow();
  await tell(signaller, workflow, 'one');
  await temporal.workflow.getHandle(workflow.workflowId).terminate('the session is over');
  await Promise.all(['two', 'three', 'four'].map((fact) => tell(signaller, workflow, fact)));
  expect((await toldTo(workflow.workflowId)).facts.sort()).toEqual(['four', 'three', 'two']);
});

test('when more workflows were told something than are kept in mind, then the one that was silent for longest is forgotten', async () => {
  const signaller = createWorkflowSignaller(temporal, 2);
  const [first, second, third] = [freshWorkflow(), freshWorkflow(), freshWorkflow()];
  for (const workflow of [first, second, first, third]) await tell(signaller, workflow, 'something');
  asked = [];
  await tell(signaller, first, 'again');
  await tell(signaller, second, 'again');
  expect(asked).toEqual(['signal', 'signalWithStart']);
});

test('when Temporal cannot be reached, then the caller learns so, and the workflow is not taken for one that ended', async () => {
  const signaller = createWorkflowSignaller(temporal);
  const workflow = freshWorkflow();
  await tell(signaller, workflow, 'one');
  const { address, namespace } = testTemporal();
  const own = Connection.lazy({ address });
  const cutOff = new Client({ connection: own, namespace });
  const unreachable = createWorkflowSignaller(cutOff);
  await tell(unreachable, workflow, 'two');
  await own.close();
  await expect(tell(unreachable, workflow, 'three')).rejects.not.toBeInstanceOf(WorkflowNotFoundError);
  expect((await toldTo(workflow.workflowId)).facts).toEqual(['one', 'two']);
});
