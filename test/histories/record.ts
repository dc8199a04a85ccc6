/**
 * Records the histories that CI replays (`npm run record-histories`): one file per road through a workflow, made by
 * real runs. Recorded anew when a workflow changes on purpose; old files stay as long as such runs may be alive.
 */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { historyToJSON } from '@temporalio/common/lib/proto-utils';
import { type Receiver, startReceiver } from '../../src/sandbox/receiver';
import { testDatabase, testTemporal } from '../support/engine';
import { startEngine, stopEngine } from '../support/servers';
import { type System, startSystem } from '../support/system';
import { callbackRoads, callRoads, conversationOfCallRoads, retentionRoads } from './call-roads';
import { conversationRoads } from './conversation-roads';
import type { Road } from './road';

const ROOT = resolve(__dirname, '..', '..');
const FOLDER = join(ROOT, 'workflows', 'histories');
/** Below the root: the histories name the archives. */
const DATA_DIR = join(ROOT, '.data', 'histories');

/** By the beginning of the file's name. */
const roadsOf = (receiver: Receiver): Record<string, Record<string, Road>> => ({
  conversation: { ...conversationRoads, ...conversationOfCallRoads },
  call: callRoads,
  callback: callbackRoads(receiver),
  retention: retentionRoads,
});

/** `wanted`: the beginning of the files' names; all by default. */
async function main(wanted?: string): Promise<void> {
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
    await mkdir(FOLDER, { recursive: true });
    for (const [kind, roads] of Object.entries(roadsOf(receiver)))
      for (const [name, drive] of Object.entries(roads))
        if (wanted === undefined || `${kind}-${name}`.startsWith(wanted)) await record(system, `${kind}-${name}.json`, drive);
  } finally {
    await system.close();
    await database.drop();
    await receiver.close();
    await rm(DATA_DIR, { recursive: true, force: true });
    await stopEngine();
  }
}

async function record(system: System, file: string, drive: Road): Promise<void> {
  const handle = system.temporal.workflow.getHandle(await drive(system));
  // A cancelled one ends with an error; what matters is that it has ended.
  await handle.result().catch(() => undefined);
  const history = withoutMachine(JSON.parse(historyToJSON(await handle.fetchHistory())));
  await writeFile(join(FOLDER, file), `${JSON.stringify(history, null, 1)}\n`);
  process.stdout.write(`recorded ${file}\n`);
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

void main(process.argv[2]);
