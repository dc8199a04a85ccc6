/** The log files of `npm start`, with a real process that writes to one. */
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { logFile, rotateLogs } from './instance';
import { type RunningServer, startServer } from './process';

let dataDir: string;
let writer: RunningServer | undefined;

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'parley-logs-'));
});

afterEach(async () => {
  await writer?.stop();
  await rm(dataDir, { recursive: true, force: true });
});

test('when a process keeps writing, then its log stays bounded, and its lines are still followed', async () => {
  const file = logFile(dataDir, 'writer');
  const seen: number[] = [];
  const waiting = new Set<() => void>();
  const until = (count: number) =>
    new Promise<void>((resolve) => {
      const look = () => {
        if (seen.length >= count) resolve();
      };
      waiting.add(look);
      look();
    });
  writer = await startServer({
    name: 'the writer',
    command: process.execPath,
    args: ['-e', "let n = 0; setInterval(() => process.stdout.write((n += 1) + ' ' + 'x'.repeat(200) + '\\n'), 5)"],
    environment: {},
    isReady: () => true,
    stopSignal: 'SIGKILL',
    stopGraceMs: 1_000,
    logFile: file,
    onLog(line) {
      seen.push(Number.parseInt(line, 10));
      for (const look of waiting) look();
    },
  });
  await until(30);
  rotateLogs(dataDir, 1_000_000);
  await expect(stat(`${file}.1`)).rejects.toThrow('ENOENT');

  for (const round of [1, 2]) {
    const { size } = await stat(file);
    expect(size).toBeGreaterThan(2_000);
    rotateLogs(dataDir, 1_000);
    const before = seen.length;
    await until(before + 30);
    const [current, former] = await Promise.all([readFile(file, 'utf8'), readFile(`${file}.1`, 'utf8')]);
    // The log restarts at its beginning, without a hole of zeros.
    expect([round, current.split('\n')[0]]).toEqual([round, expect.stringMatching(/^\d+ x+$/)]);
    expect(Number.parseInt(former, 10)).toBeLessThan(Number.parseInt(current, 10));
  }
  // A few lines may be lost at a rotation; none appears twice or out of order.
  expect(seen).toEqual([...new Set(seen)].sort((one, other) => one - other));
  expect((seen.at(-1) ?? 0) - seen.length).toBeLessThan(40);
});

test('when there is no log yet, then there is nothing to rotate', () => {
  logFile(dataDir, 'none');
  expect(() => rotateLogs(dataDir, 1)).not.toThrow();
});
