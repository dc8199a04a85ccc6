/**
 * Records the histories that CI replays (`npm run record-histories`): one file per road through a workflow, made by real runs, in the
 * folder of the version that package.json names. Recorded once, when a version is released (docs/decisions/0010), and never again.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { historyToJSON } from '@temporalio/common/lib/proto-utils';
import { version } from '../../package.json';
import { readArguments, runCommand } from '../../src/platform/command-line';
import { startReceiver } from '../../src/sandbox/receiver';
import { testDatabase, testTemporal } from '../support/engine';
import { startEngine, stopEngine } from '../support/servers';
import { startSystem } from '../support/system';
import { freezeHistory, ROOT, recordedHistories } from './frozen';
import type { RecordedSystem, Road } from './road';
import { roads } from './roads';

/** Below the root: the histories name the archives. */
const DATA_DIR = join(ROOT, '.data', 'histories');

const HELP = `usage: npm run record-histories -- [<beginning>]

Records the histories of the version in package.json, once. <beginning>: only the files whose names begin like this.

  -h, --help  show this help`;

async function main(args: string[]): Promise<number> {
  const line = readArguments(args, { help: HELP, options: {}, maxPositionals: 1 });
  if (line === undefined) return 0;
  const [wanted = ''] = line.positionals;
  const roadsByPath = Object.entries(roads)
    .flatMap(([kind, ofKind]) => Object.entries(ofKind).map(([name, road]) => [`${kind}-${name}.json`, road] as const))
    .filter(([file]) => file.startsWith(wanted))
    .map(([file, road]) => [`${version}/${file}`, road] as const);
  await refuseRecorded(roadsByPath.map(([path]) => path));
  await startEngine();
  const receiver = await startReceiver();
  const database = await testDatabase('histories');
  const system = await startSystem({
    databaseUrl: database.url,
    temporalAddress: testTemporal().address,
    environment: ({ modelsUrl }) => ({
      DEEPSEEK_API_KEY: 'k',
      DEEPSEEK_BASE_URL: modelsUrl,
      AI_PROVIDERS: 'deepseek:flaky,sandbox',
      REPLY_QUIET_MS: '300',
      SESSION_TIMEOUT_MS: '3000',
      SEND_CONFIRM_MS: '3000',
      CALL_REPORT_GRACE_SECONDS: '1',
      CALL_RING_TIMEOUT_SECONDS: '2',
      CALL_FOLLOW_UP_TEXT: 'In short: {summary}',
      CALLBACK_ALLOWED_HOSTS: new URL(receiver.url).host,
      CALLBACK_SIGNING_SECRET: 'whsec_cmVjb3JkZXItcmVjb3JkZXItcmVjb3JkZXItMDEyMzQ=',
      DATA_DIR,
    }),
  });
  try {
    for (const [path, road] of roadsByPath) await record({ ...system, receiver }, path, road);
  } finally {
    await system.close();
    await database.drop();
    await receiver.close();
    await rm(DATA_DIR, { recursive: true, force: true });
    await stopEngine();
  }
  return 0;
}

/** Before minutes are spent on runs that cannot be written. */
async function refuseRecorded(wanted: string[]): Promise<void> {
  const existing = new Set(await recordedHistories());
  const refused = wanted.filter((path) => existing.has(path));
  if (refused.length === 0) return;
  throw new Error(`recorded already, and frozen: ${refused.join(', ')}. A later version of package.json gets a folder of its own.`);
}

async function record(system: RecordedSystem, path: string, drive: Road): Promise<void> {
  const handle = system.temporal.workflow.getHandle(await drive(system));
  // A cancelled one ends with an error; what matters is that it has ended.
  await handle.result().catch(() => undefined);
  const history = withoutMachine(JSON.parse(historyToJSON(await handle.fetchHistory())));
  await freezeHistory(path, `${JSON.stringify(history, null, 1)}\n`);
  process.stdout.write(`recorded ${path}\n`);
}

/** Replay looks at none of these, and they name the machine that recorded. */
function withoutMachine(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutMachine);
  // The queue of one worker process is named after its process id and host.
  if (typeof value === 'string') return /^\d+@/.test(value) ? 'worker' : value;
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => {
      if (name === 'identity' || name === 'stackTrace') return [name, undefined];
      return [name, name === 'data' && typeof inner === 'string' ? payloadWithoutFolder(inner) : withoutMachine(inner)];
    }),
  );
}

/** Base64 in, base64 out. */
function payloadWithoutFolder(data: string): string {
  const text = Buffer.from(data, 'base64').toString();
  return text.includes(ROOT) ? Buffer.from(text.replaceAll(ROOT, '/parley')).toString('base64') : data;
}

runCommand(main);
