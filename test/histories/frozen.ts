/**
 * The frozen histories. `workflows/histories/SHA256SUMS` lists the file of every history (`sha256sum --check SHA256SUMS` reads it too).
 * A list can be edited together with a file, so what was once committed to it stays in it: the history of the repository is asked as well.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';

/** The repository's root. */
export const ROOT = resolve(__dirname, '..', '..');

const FOLDER = join('workflows', 'histories');
const LIST = 'SHA256SUMS';

/** Paths of the histories of all versions, such as `0.1.0/call-answered.json`, in order. */
export async function recordedHistories(root = ROOT): Promise<string[]> {
  const entries = await readdir(join(root, FOLDER), { recursive: true });
  return entries.filter((path) => path.endsWith('.json')).sort();
}

/** The text of a history's file. */
export async function readHistory(path: string, root = ROOT): Promise<string> {
  return await readFile(join(root, FOLDER, path), 'utf8');
}

/** Writes a new history and lists it. @throws when the file exists, or when it is listed and was removed */
export async function freezeHistory(path: string, text: string, root = ROOT): Promise<void> {
  const lines = await readList(root);
  if (lines.some((line) => pathIn(line) === path)) throw new Error(`${path} is frozen: ${LIST} lists it`);
  const file = join(root, FOLDER, path);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, text, { flag: 'wx' });
  const inOrder = [...lines, lineOf(path, text)].sort((a, b) => (pathIn(a) < pathIn(b) ? -1 : 1));
  await writeFile(join(root, FOLDER, LIST), inOrder.map((line) => `${line}\n`).join(''));
}

/** What is not as it was recorded, a line for each file; empty when all is well. */
export async function findTampering(root = ROOT): Promise<string[]> {
  const lines = await readList(root);
  const listed = new Set(lines.map(pathIn));
  const unlisted = (await recordedHistories(root)).filter((path) => !listed.has(path));
  const committed = await committedLines(root);
  return [
    ...(await Promise.all(lines.map((line) => problemWith(line, root)))).flat(),
    ...unlisted.map((path) => `${path} is not listed in ${LIST}`),
    ...committed.filter((line) => !lines.includes(line)).map((line) => `${pathIn(line)} was committed otherwise to ${LIST}: ${line}`),
  ];
}

async function problemWith(line: string, root: string): Promise<string[]> {
  const path = pathIn(line);
  if (!existsSync(join(root, FOLDER, path))) return [`${path} is missing`];
  return lineOf(path, await readHistory(path, root)) === line ? [] : [`${path} was changed`];
}

async function readList(root: string): Promise<string[]> {
  const file = join(root, FOLDER, LIST);
  return existsSync(file) ? (await readFile(file, 'utf8')).split('\n').filter((line) => line !== '') : [];
}

/**
 * Every line that the list ever had on the way to this commit. A shallow clone knows less of that way, and an exported tree knows
 * nothing: there, file and list hold each other.
 */
async function committedLines(root: string): Promise<string[]> {
  if (!existsSync(join(root, '.git'))) return [];
  const { stdout } = await promisify(execFile)(
    'git',
    // Each change against the branch that it went into: two branches may have recorded the same version, and one of them was taken.
    ['log', '--first-parent', '-m', '--patch', '--format=', '--no-color', '--no-ext-diff', '--', `${FOLDER}/${LIST}`],
    { cwd: root, maxBuffer: 100 * 1024 * 1024 },
  );
  return stdout.split('\n').flatMap((line) => /^\+([0-9a-f]{64} {2}.+)$/.exec(line)?.[1] ?? []);
}

/** As `sha256sum` writes it. */
function lineOf(path: string, text: string): string {
  return `${createHash('sha256').update(text).digest('hex')}  ${path}`;
}

function pathIn(line: string): string {
  return line.slice(line.indexOf('  ') + 2);
}
