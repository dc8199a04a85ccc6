/** The queries of docs/production.md for saved views, each run against the real server, and the details of the workflows that they find. */
import { readFileSync } from 'node:fs';
import { newNumber, placeCall, resultOf } from './support/calls';
import { eventually, newPhone, outcomesOf, workflowIdOf } from './support/expectations';
import { startSuite } from './support/suite';
import type { System } from './support/system';

let system: System;

beforeAll(async () => {
  system = await startSuite('saved_views', {
    environment: ({ modelsUrl }) => ({ DEEPSEEK_API_KEY: 'k1', DEEPSEEK_BASE_URL: modelsUrl, AI_PROVIDERS: 'deepseek:m-one' }),
  });
});

afterAll(async () => {
  await system?.close();
});

/** The first column of the table under "What to watch". */
function documentedQueries(): string[] {
  const section = readFileSync('docs/production.md', 'utf8').split('\n## What to watch\n')[1]?.split('\n### ')[0] ?? '';
  return [...section.matchAll(/^\| `([^`]+)`/gm)].flatMap(([, query]) => query ?? []);
}

async function idsFor(query: string): Promise<string[]> {
  const ids: string[] = [];
  for await (const { workflowId } of system.temporal.workflow.list({ query: query.replace('<id>', system.phoneNumberId) })) {
    ids.push(workflowId);
  }
  return ids;
}

async function detailsOf(workflowId: string): Promise<string[]> {
  const handle = system.temporal.workflow.getHandle(workflowId);
  const { currentDetails } = await handle.query<{ currentDetails: string }>('__temporal_workflow_metadata');
  return currentDetails.split('\n\n');
}

async function conversationIdOf(workflowId: string): Promise<string> {
  return (await system.db.conversation.findUniqueOrThrow({ where: { workflowId } })).id;
}

test('when a turn has failed, then the bold line says so and why until a reply is sent, and the first line has the id', async () => {
  const { kapso, models } = system.sandbox;
  const phone = newPhone();
  models.program({ model: 'm-one', times: 1, error: { status: 401, message: `marker about ${phone}` } });
  await kapso.customerSends({ from: phone, name: 'Marker', text: 'marker' });
  expect(await outcomesOf(system, phone, 1)).toEqual(['failed']);
  const workflowId = await workflowIdOf(system, phone);
  const id = await conversationIdOf(workflowId);
  const failed = await eventually(async () => {
    const details = await detailsOf(workflowId);
    expect(details[1]).toMatch(
      /^\*\*waiting for a message · last turn failed: no model can answer: deepseek \(m-one\) responded with 401: .+\*\* · needs attention$/,
    );
    return details;
  });
  expect(failed[0]).toBe(`conversation ${id}`);
  expect(failed.join()).not.toMatch(new RegExp(`${phone}|[Mm]arker`));
  await kapso.customerSends({ from: phone, text: 'again' });
  await kapso.waitForVisible(phone, 1, 20_000);
  await eventually(async () => expect((await detailsOf(workflowId))[1]).toBe('**waiting for a message**'));
});

test('when the documented queries are run, then the server accepts each, and finds what it describes', async () => {
  const { kapso, models } = system.sandbox;
  const phone = newPhone();
  models.program({ model: 'm-one', times: 1, error: { status: 401 } });
  await kapso.customerSends({ from: phone, text: 'hello' });
  const conversation = await workflowIdOf(system, phone);
  const to = newNumber();
  system.sandbox.vapi.play({ when: ({ number }) => number === to, play: 'busy' });
  const { callId } = (await placeCall(system, { to })).body;
  expect((await resultOf(system, callId)).outcome).toBe('busy');
  const queries = documentedQueries();
  expect(queries.length).toBeGreaterThan(10);
  for (const query of queries) await expect(idsFor(query)).resolves.toEqual(expect.any(Array));
  await expect(idsFor('ParleyUnknown = true')).rejects.toThrow();
  const views: [RegExp, string][] = [
    [/conversationWorkflow.*Attention/, conversation],
    [/conversationWorkflow.*Running/, conversation],
    [/ParleyWorkspace/, conversation],
    [/"busy"/, `call-${callId}`],
  ];
  for (const [view, workflowId] of views) {
    const query = queries.find((candidate) => view.test(candidate)) ?? 'none';
    await eventually(async () => expect(await idsFor(query)).toContain(workflowId), 30_000);
  }
});
