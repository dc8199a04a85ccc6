import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { workflowBundle } from './workflow-bundle';

const WORKFLOWS = join(__dirname, '..', '..', 'workflows');
const sources = (readdirSync(WORKFLOWS, { recursive: true }) as string[]).filter(
  (file) => file.endsWith('.ts') && !file.endsWith('.test.ts'),
);

/** What is outside of functions and classes, and may change. */
const STATE = /^(?:export )?(?:(?:let|var) .*|const \w+.*= (?:new (?:Map|Set|WeakMap|WeakSet|Array)\b|\[\]|\{\}).*)/gm;

test.each(sources)('%s keeps no state in a variable of the module, which all workflows of a worker share', (file) => {
  expect(readFileSync(join(WORKFLOWS, file), 'utf8').match(STATE) ?? []).toEqual([]);
});

test.each(['let count = 0;', 'export let count = 0;', 'const seen = new Map<string, number>();', 'const seen: string[] = [];'])(
  '%s is state',
  (line) => {
    expect(line.match(STATE)).toHaveLength(1);
  },
);

test('the bundle keeps private fields as they are, and runs our modules once', async () => {
  const code = readFileSync((await workflowBundle()).codePath, 'utf8');
  expect(code).not.toContain('_class_private_field_get');
  expect(code).toMatch(/preloadModules\(\) \{\s+__webpack_require__\(/);
}, 60_000);
