import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findTampering, freezeHistory, readHistory, recordedHistories } from './frozen';

const FILE = '0.1.0/call-answered.json';
let root: string;

const pathOf = (history: string) => join(root, 'workflows', 'histories', history);
const list = () => pathOf('SHA256SUMS');
const git = (...args: string[]) =>
  execFileSync('git', ['-c', 'user.name=test', '-c', 'user.email=test@example.com', '-c', 'commit.gpgsign=false', ...args], { cwd: root });

/** Records what the list says of the files anew, as somebody would who does not know better. */
async function listAnew(): Promise<void> {
  const texts = await Promise.all((await recordedHistories(root)).map(async (path) => [path, await readHistory(path, root)] as const));
  await rm(pathOf('.'), { recursive: true });
  for (const [path, text] of texts) await freezeHistory(path, text, root);
}

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'parley-histories-'));
  await freezeHistory(FILE, '{"events":[1]}\n', root);
  await freezeHistory('0.1.0/call-inbound.json', '{"events":[2]}\n', root);
});

afterEach(async () => {
  await rm(root, { recursive: true });
});

test('when no history was touched, then nothing is said, and sha256sum agrees with the list', async () => {
  expect(await findTampering(root)).toEqual([]);
  execFileSync('sha256sum', ['--check', '--quiet', 'SHA256SUMS'], { cwd: pathOf('.') });
});

test('when a history was changed, removed or added by hand, then it is named', async () => {
  await writeFile(pathOf(FILE), '{"events":[3]}\n');
  expect(await findTampering(root)).toEqual([`${FILE} was changed`]);
  await unlink(pathOf(FILE));
  expect(await findTampering(root)).toEqual([`${FILE} is missing`]);
  await writeFile(pathOf('0.1.0/call-new.json'), '{}\n');
  expect(await findTampering(root)).toEqual([`${FILE} is missing`, '0.1.0/call-new.json is not listed in SHA256SUMS']);
});

test('when a history exists or is listed, then it cannot be recorded again', async () => {
  const isFrozen = `${FILE} is frozen: SHA256SUMS lists it`;
  await expect(freezeHistory(FILE, '{}\n', root)).rejects.toThrow(isFrozen);
  await unlink(pathOf(FILE));
  await expect(freezeHistory(FILE, '{}\n', root)).rejects.toThrow(isFrozen);
  await writeFile(pathOf('0.1.0/call-new.json'), 'by hand\n');
  await expect(freezeHistory('0.1.0/call-new.json', '{}\n', root)).rejects.toThrow('EEXIST');
  expect(await readHistory('0.1.0/call-new.json', root)).toBe('by hand\n');
});

describe('in a clone', () => {
  beforeEach(() => {
    git('init', '--quiet');
    git('add', '.');
    git('commit', '--quiet', '--message', 'the first release');
  });

  test('when the next version is recorded, then nothing is said, before and after its commit', async () => {
    await freezeHistory('0.2.0/call-answered.json', '{"events":[4]}\n', root);
    expect(await findTampering(root)).toEqual([]);
    git('add', '.');
    git('commit', '--quiet', '--message', 'the second release');
    expect(await findTampering(root)).toEqual([]);
  });

  test.each([
    ['changed', () => writeFile(pathOf(FILE), '{"events":[3]}\n')],
    ['removed', () => unlink(pathOf(FILE))],
  ])('when a history was %s and the list with it, then the commit that had it tells', async (_how, tamper) => {
    await tamper();
    await listAnew();
    const said = [expect.stringMatching(/^0\.1\.0\/call-answered\.json was committed otherwise to SHA256SUMS: [0-9a-f]{64} /)];
    expect(await findTampering(root)).toEqual(said);
    git('add', '--all');
    git('commit', '--quiet', '--message', 'nothing to see here');
    expect(await findTampering(root)).toEqual(said);
  });

  test('when the whole folder of a version or the list itself was removed, then each file is missed', async () => {
    await rm(pathOf('.'), { recursive: true });
    await freezeHistory('0.2.0/call-answered.json', '{"events":[4]}\n', root);
    expect(await findTampering(root)).toHaveLength(2);
    await unlink(list());
    expect(await findTampering(root)).toHaveLength(3);
  });
});
