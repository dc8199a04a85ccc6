/** Programs that may be missing on a developer's machine, but not in CI. */
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** The path of a program on the PATH; undefined if there is none. */
export function findProgram(name: string): string | undefined {
  // biome-ignore lint/style/noProcessEnv: searches the PATH as a shell does
  const { PATH = '' } = process.env;
  return PATH.split(delimiter)
    .map((folder) => join(folder, name))
    .find((file) => existsSync(file));
}

/** `test` if all programs are installed, and always in CI (`.ci/run` installs them); otherwise `test.skip`, naming what is missing. */
export function testWith(...names: string[]): typeof test {
  const missing = names.filter((name) => findProgram(name) === undefined);
  // biome-ignore lint/style/noProcessEnv: in CI a missing program must fail, not skip, the test
  if (missing.length === 0 || process.env.CI !== undefined) return test;
  process.stderr.write(`not installed: ${missing.join(', ')}; skipping the tests that need it\n`);
  return test.skip;
}
