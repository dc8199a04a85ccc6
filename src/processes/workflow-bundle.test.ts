import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { workflowBundle } from './workflow-bundle';

const WORKFLOWS = join(__dirname, '..', '..', 'workflows');
const sources = (readdirSync(WORKFLOWS, { recursive: true }) as string[]).filter(
  (file) => file.endsWith('.ts') && !file.endsWith('.test.ts'),
);

/** What a module may define besides functions, classes and types: constants, and definitions of the SDK, which are not changed afterwards. */
const CONSTANT = new RegExp(
  [
    String.raw`^(?:export )?const \w+(?:: [^=]+)? = (?:-?[\d_.]+(?: \* [\d_.]+)*;|'[^']*';|/.+/i?;|define\w+[<(]|(?:checked<\w+>\(\s*)?proxy(?:Local)?Activities<)`,
    String.raw`^(?:export )?const \w+ = [\[{][\s\S]* as const(?: satisfies \w+)?;$`,
  ].join('|'),
);

/** Statements at the beginning of a line that could keep state. Static fields could, too. */
function stateIn(source: string): string[] {
  const variables = source.match(/^(?:export )?(?:const|let|var) [\s\S]*?;$/gm) ?? [];
  return [...variables.filter((statement) => !CONSTANT.test(statement)), ...(source.match(/^\s+static (?!readonly).*/gm) ?? [])];
}

test.each(sources)('%s keeps no state outside of its functions and objects, which all workflows of a worker would share', (file) => {
  expect(stateIn(readFileSync(join(WORKFLOWS, file), 'utf8'))).toEqual([]);
});

test.each([
  'let count = 0;',
  'export let count = 0;',
  'const seen = new Map<string, number>();',
  'const bell = new Bell();',
  'const counters = { sent: 0 };',
  "const seen = ['x'];",
  'const cache: Cache =\n  makeCache();',
  'class Inbox {\n  static #count = 0;\n}',
])('%j is state', (source) => {
  expect(stateIn(source)).toHaveLength(1);
});

test('the bundle keeps private fields as they are, and runs our modules once', async () => {
  const code = readFileSync((await workflowBundle()).codePath, 'utf8');
  expect(code).not.toContain('_class_private_field_get');
  expect(code).toMatch(/preloadModules\(\) \{\s+__webpack_require__\(/);
}, 60_000);
