/** Recorded histories of real runs are replayed by today's code: a change that running workflows would not survive fails here. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import { workflowBundle } from '../src/processes/workflow-bundle';
import * as workflows from '.';

const FOLDER = join(__dirname, 'histories');
const files = readdirSync(FOLDER).filter((file) => file.endsWith('.json'));

beforeAll(() => {
  Runtime.install({ logger: new DefaultLogger('ERROR') });
});

test('when histories are looked for, then every workflow has some, and each is named after its own', () => {
  const kinds = files.map((file) => {
    const { events } = JSON.parse(readFileSync(join(FOLDER, file), 'utf8'));
    const type: string = events[0].workflowExecutionStartedEventAttributes.workflowType.name;
    expect(file.startsWith(`${type.replace(/Workflow$/, '')}-`)).toBe(true);
    return type;
  });
  expect(new Set(kinds)).toEqual(new Set(Object.keys(workflows)));
});

test.each(files)('when %s is replayed, then today’s code decides the same', async (file) => {
  const history = JSON.parse(readFileSync(join(FOLDER, file), 'utf8'));
  await Worker.runReplayHistory({ workflowBundle: await workflowBundle() }, history, file);
});
