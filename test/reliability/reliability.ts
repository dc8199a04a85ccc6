/**
 * `npm run reliability`: takes one part after the other away from real processes while customers write, checks that nothing is lost,
 * answered twice or out of order, and writes the table of docs/reliability.md.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { findTemporalCli } from '../../src/local/embedded/temporal-cli';
import { readArguments, runCommand, UsageError } from '../../src/platform/command-line';
import { loadEnvFile, readSettings } from '../../src/platform/config';
import { buildCluster } from '../support/temporal-cluster';
import { check, isSettled } from './check';
import { type Installation, startInstallation } from './installation';
import { PER_SECOND, SECONDS, startLoad } from './load';
import { cells, type Line, renderTable, updateDocument } from './report';
import { type MissingRow, ROWS, type Row } from './rows';
import { type Servers, type Stops, startClusterServers, startEmbeddedServers } from './servers';

const DOCUMENT = 'docs/reliability.md';
const HEADING = '## On the embedded servers';
const CLUSTER_HEADING = '## On a cluster';

/** The load runs for this long before the outage begins. */
const LEAD_MS = 10_000;
/** Kapso's last attempt comes 50 s after the first, and a turn may take 15 minutes; after an outage of minutes, this is plenty. */
const SETTLE_MS = 5 * 60_000;
const REPORT_EVERY_MS = 10_000;

/** The servers are in process groups of their own, which Ctrl-C does not reach. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const EXIT_INTERRUPTED = 130;

const HELP = `usage: npm run reliability -- [options]

Takes parts of a running Parley away while customers write ${PER_SECOND} messages per second for ${SECONDS} s, checks that nothing is lost,
answered twice or out of order, and updates ${DOCUMENT}.

  --only <row>    one row: ${ROWS.map(({ id }) => id).join(', ')}
  --cluster       two APIs and two workers, on a Temporal server with four roles on PostgreSQL (built once, with Go)
  --dry-run       does not write the document
  -h, --help      show this help

exit status: 0 if everything holds; 1 if not, or on an error; 2 for wrong arguments`;

async function main(args: string[]): Promise<number> {
  const line = readArguments(args, {
    help: HELP,
    options: { only: { type: 'string' }, cluster: { type: 'boolean' }, 'dry-run': { type: 'boolean' } },
  });
  if (line === undefined) return 0;
  const { only, cluster: isCluster = false, 'dry-run': isDryRun = false } = line.values;
  const rows = ROWS.filter(({ id }) => only === undefined || id === only);
  if (rows.length === 0) throw new UsageError(`--only: there is no row "${only}"`);
  const lines: Line[] = [];
  for (const row of rows) {
    const done = 'missing' in row ? missingLine(row) : await runRow(row, isCluster);
    lines.push(done);
    if (!isDryRun)
      await writeFile(DOCUMENT, updateDocument(await readFile(DOCUMENT, 'utf8'), isCluster ? CLUSTER_HEADING : HEADING, [done]));
  }
  process.stdout.write(`\n${renderTable(lines.map(cells))}\n`);
  return lines.some(({ findings }) => findings !== undefined && findings.problems.length > 0) ? 1 : 0;
}

function missingLine({ title, missing }: MissingRow): Line {
  return { title, missing };
}

/** Each row has servers and data of its own. */
async function runRow(row: Row, isCluster: boolean): Promise<Line> {
  const startedAtMs = Date.now();
  const say = (text: string) =>
    process.stdout.write(`${String(Math.round((Date.now() - startedAtMs) / 1_000)).padStart(4)} s  ${row.title}: ${text}\n`);
  say('starting');
  const stops: Stops = [];
  const interrupt = async () => {
    await stopAll(stops);
    process.exit(EXIT_INTERRUPTED);
  };
  for (const name of SIGNALS) process.once(name, interrupt);
  try {
    const servers = await startServers(isCluster, say, stops);
    return await measure(row, await startInstallation(servers, isCluster ? 2 : 1, stops), say);
  } finally {
    await stopAll(stops);
    for (const name of SIGNALS) process.removeListener(name, interrupt);
  }
}

async function stopAll(stops: Stops): Promise<void> {
  for (const stop of stops.splice(0).reverse()) await stop();
}

async function startServers(isCluster: boolean, onProgress: (text: string) => void, stops: Stops): Promise<Servers> {
  // biome-ignore lint/style/noProcessEnv: a terminal command finds the Temporal CLI as `npm start` does
  const environment = process.env;
  if (isCluster) return await startClusterServers(await buildCluster(environment, onProgress), stops);
  const setting = readSettings({ TEMPORAL_CLI_PATH: environment.TEMPORAL_CLI_PATH }).TEMPORAL_CLI_PATH;
  return await startEmbeddedServers(await findTemporalCli({ setting, environment, onProgress }), stops);
}

async function measure(row: Row, installation: Installation, say: (text: string) => void): Promise<Line> {
  const { system } = installation;
  const load = startLoad(system);
  const watch = setInterval(() => {
    const taken = load.written.filter(({ status }) => status === 200).length;
    say(`${load.written.length} written, ${taken} taken, ${system.sandbox.kapso.counts().accepted} replies`);
  }, REPORT_EVERY_MS);
  try {
    await sleep(LEAD_MS);
    say('the outage begins');
    await row.begin(installation);
    await sleep(row.outageMs);
    await row.end(installation);
    const endedAtMs = Date.now();
    say('the outage is over');
    await load.finished;
    await settled(installation, load.written.length);
    const settledAfterSeconds = (Date.now() - endedAtMs) / 1_000;
    // The last statuses, with Kapso's retries.
    await system.sandbox.kapso.settled();
    const findings = await check(system, load.written, row.takesAlways);
    say(findings.problems.length === 0 ? 'holds' : findings.problems.join('; '));
    return { title: row.title, findings: { ...findings, settledAfterSeconds } };
  } finally {
    clearInterval(watch);
  }
}

/** Waits until every message has an outcome; what has none in the end is a finding. */
async function settled({ system }: Installation, sent: number): Promise<void> {
  const deadlineMs = Date.now() + SETTLE_MS;
  while (Date.now() < deadlineMs && !(await isSettled(system, sent))) await sleep(500);
}

loadEnvFile();
runCommand(main);
