/** Programs that a developer's machine may lack, and CI must have. */
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Where a shell would find a program; undefined where it would not. */
export function findProgram(name: string): string | undefined {
  // biome-ignore lint/style/noProcessEnv: where a shell would look
  const { PATH = '' } = process.env;
  return PATH.split(delimiter)
    .map((folder) => join(folder, name))
    .find((file) => existsSync(file));
}

/** `test` where all of the programs are there, and in CI (`.ci/run` installs them); elsewhere `test.skip`, which says what is missing. */
export function testWith(...names: string[]): typeof test {
  const missing = names.filter((name) => findProgram(name) === undefined);
  // biome-ignore lint/style/noProcessEnv: where a skipped test must not pass for a green one
  if (missing.length === 0 || process.env.CI !== undefined) return test;
  process.stderr.write(`not installed: ${missing.join(', ')}; the tests that need it are skipped\n`);
  return test.skip;
}
