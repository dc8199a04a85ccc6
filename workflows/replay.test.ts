/** Recorded histories of real runs are replayed by today's code: a change that running workflows would not survive fails here. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import { workflowBundle } from '../src/processes/workflow-bundle';
import { findTampering, readHistory } from '../test/histories/frozen';
import { roads } from '../test/histories/roads';
import * as workflows from '.';

// Read at once: the tests below are named after the files.
const paths = readdirSync(join(__dirname, 'histories'), { recursive: true })
  .map(String)
  .filter((path) => path.endsWith('.json'));

beforeAll(() => {
  Runtime.install({ logger: new DefaultLogger('ERROR') });
});

test('when the histories of all releases are looked at, then each is as it was recorded', async () => {
  expect(await findTampering()).toEqual([]);
});

test('when a workflow exists, then roads through it are recorded at the next release', () => {
  expect(
    Object.keys(roads)
      .map((kind) => `${kind}Workflow`)
      .sort(),
  ).toEqual(Object.keys(workflows).sort());
});

test.each(paths)('when %s is replayed, then today’s code decides the same', async (path) => {
  const history = JSON.parse(await readHistory(path));
  const type: string = history.events[0].workflowExecutionStartedEventAttributes.workflowType.name;
  expect(path).toContain(`/${type.replace(/Workflow$/, '')}-`);
  await Worker.runReplayHistory({ workflowBundle: await workflowBundle() }, history, path);
});
