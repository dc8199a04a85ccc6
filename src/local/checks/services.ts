/** The services behind Parley, and its own processes: the database, Temporal, the API and the worker. */
import { searchAttributes } from '../../../workflows/contract';
import { callsState, type Settings } from '../../platform/config';
import { withDeadline } from '../../platform/deadline';
import { sendRequest } from '../../platform/http-request';
import { pendingMigrations } from '../../platform/migrations';
import { isTemporalReachable, openTemporalClient, temporalConfig } from '../../platform/temporal';
import { keyStatus } from '../../providers/vapi/client';
import { messageOf } from '../instance-file';
import { about, type Finding } from './finding';

const TIMEOUT_MS = 5_000;
/** Temporal's TaskQueueType of workflow tasks. */
const WORKFLOW_TASKS = 1;

const database = about('Database');
const temporal = about('Temporal');
const api = about('API');
const worker = about('Worker');

/** Whether the database is reachable, with all migrations of this version. */
export async function checkDatabase(databaseUrl: string): Promise<Finding> {
  try {
    const pending = await pendingMigrations(databaseUrl);
    if (pending.length === 0) return database.ok('reachable, and all migrations are applied');
    return database.problem(`has ${pending.length} pending migration(s): run npm run migrate`);
  } catch (error) {
    // The error of a refused login names the role, never the password.
    return database.problem(`cannot be used (${messageOf(error)}): check DATABASE_URL, and that the server runs`);
  }
}

/** Whether Temporal is reachable, with its namespace and search attributes, and whether a worker polls the task queue. */
export async function checkTemporal(environment: Record<string, string | undefined>, taskQueue: string): Promise<Finding[]> {
  const client = openTemporalClient(temporalConfig(environment));
  const { namespace } = client.options;
  const { connection } = client;
  try {
    if (!(await isTemporalReachable(client, TIMEOUT_MS)))
      return [temporal.problem('cannot be reached: check TEMPORAL_ADDRESS, TLS and the key, and that the server runs')];
    const within = async <T>(ask: () => Promise<T>): Promise<T | undefined> =>
      await connection.withDeadline(Date.now() + TIMEOUT_MS, ask).catch(() => undefined);
    if (!(await within(() => connection.workflowService.describeNamespace({ namespace }))))
      return [temporal.problem(`has no namespace ${namespace}, or refuses access: check TEMPORAL_NAMESPACE and the key`)];
    const listed = await within(() => connection.operatorService.listSearchAttributes({ namespace }));
    const queue = await within(() =>
      connection.workflowService.describeTaskQueue({ namespace, taskQueue: { name: taskQueue }, taskQueueType: WORKFLOW_TASKS }),
    );
    return [attributesFinding(listed?.customAttributes), workerFinding(taskQueue, queue?.pollers?.length ?? 0)];
  } finally {
    await connection.close();
  }
}

function attributesFinding(known: object | null | undefined): Finding {
  if (!known) return temporal.note('reachable, but does not list its search attributes (docs/production.md names the required ones)');
  const missing = Object.values(searchAttributes).filter((name) => !(name in known));
  if (missing.length === 0) return temporal.ok('reachable, with all search attributes');
  return temporal.problem(`lacks the search attributes ${missing.join(', ')}: start the API once, or add them (docs/production.md)`);
}

function workerFinding(taskQueue: string, pollers: number): Finding {
  if (pollers > 0) return worker.ok(`a worker polls the task queue ${taskQueue}`);
  return worker.problem(`no worker polls the task queue ${taskQueue}: start one (npm start or npm run worker)`);
}

/** Whether the API at `apiUrl` is ready. */
export async function checkApi(apiUrl: string): Promise<Finding> {
  try {
    const { status } = await withDeadline(TIMEOUT_MS, (signal) => sendRequest(`${apiUrl}/readyz`, { method: 'GET', headers: {}, signal }));
    if (status === 200) return api.ok(`ready at ${apiUrl}`);
    return api.problem(`${apiUrl}/readyz responded with ${status}: its body names what the API is waiting for`);
  } catch {
    return api.problem(`nothing responds at ${apiUrl}: start Parley (npm start or npm run api), or check PORT and HOST`);
  }
}

/** Whether Vapi accepts the key, and the settings of voice calls are complete. */
export async function checkCalls(settings: Settings): Promise<Finding> {
  const calls = about('Calls');
  const { VAPI_API_KEY: apiKey, VAPI_BASE_URL: baseUrl } = settings;
  if (callsState(settings) === 'simulated') return calls.ok('simulated: no phone rings (set VAPI_API_KEY to make real calls)');
  if (apiKey === undefined) return calls.note('voice calls are off: VAPI_API_KEY is not set');
  if (settings.VAPI_WEBHOOK_SECRET.length === 0)
    return calls.problem('VAPI_WEBHOOK_SECRET is not set, so every event of a call is refused: set the secret that Vapi is to send');
  const names = ['VAPI_ASSISTANT_ID', 'VAPI_PHONE_NUMBER_ID', 'PUBLIC_URL'] as const;
  const missing = names.filter((name) => settings[name] === undefined).join(', ');
  const also = missing === '' ? '' : `; not set: ${missing}`;
  const status = await keyStatus({ baseUrl, apiKey, timeoutMs: TIMEOUT_MS }).catch(() => undefined);
  if (status === undefined) return calls.problem(`nothing responds at ${baseUrl}: check VAPI_BASE_URL and the network${also}`);
  if (status === 401 || status === 403)
    return calls.problem(`Vapi responded with ${status}: check VAPI_API_KEY, which must be the private key of the organisation${also}`);
  if (status >= 400) return calls.warning(`Vapi responded with ${status}: whether it accepts the key is unknown${also}`);
  if (missing === '') return calls.ok('on: Vapi accepts the key, and all settings are set');
  return calls.warning(
    `not set: ${missing}; without them, a request must name its assistant and number, and events go to the URL set in Vapi`,
  );
}
