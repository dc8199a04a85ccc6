/** Connections to Temporal from the settings (address, namespace, TLS, API key), and what a namespace must have. */
import { Client, Connection, type ConnectionOptions } from '@temporalio/client';
import { type ClientConnectConfig, loadClientConnectConfig } from '@temporalio/envconfig';
import { searchAttributes } from '../workflows/contract';

/** Values of Temporal's IndexedValueType. */
const KEYWORD = 2;
const BOOL = 5;
const WANTED_ATTRIBUTES = {
  [searchAttributes.workspace]: KEYWORD,
  [searchAttributes.mode]: KEYWORD,
  [searchAttributes.attention]: BOOL,
  [searchAttributes.callStatus]: KEYWORD,
  [searchAttributes.callOutcome]: KEYWORD,
};

/** gRPC status codes. */
const ALREADY_EXISTS = 6;
const PERMISSION_DENIED = 7;
const UNIMPLEMENTED = 12;

/** Reads `TEMPORAL_*` as Temporal's environment configuration defines them; a configuration file of the CLI is not looked at. */
export function temporalConfig(environment: Record<string, string | undefined>): ClientConnectConfig & { namespace: string } {
  const present = Object.fromEntries(Object.entries(environment).filter((entry): entry is [string, string] => Boolean(entry[1]?.trim())));
  const config = loadClientConnectConfig({ disableFile: true, overrideEnvVars: present });
  return { ...config, namespace: config.namespace ?? 'default' };
}

/** A client that connects with its first call, so that a process starts while Temporal is away. */
export function openTemporalClient(config: ClientConnectConfig & { namespace: string }): Client {
  // NativeConnectionOptions and ConnectionOptions agree on what the environment can set.
  const connection = Connection.lazy(config.connectionOptions as ConnectionOptions);
  return new Client({ connection, namespace: config.namespace });
}

/**
 * Registers the search attributes that workflows are started with. Does nothing where they exist, and where the server
 * lets nobody ask or add: Temporal Cloud wants them made by its own tools (docs/production.md).
 * @throws when Temporal cannot be reached, or refuses for another reason
 */
export async function ensureSearchAttributes(client: Client): Promise<void> {
  const { operatorService } = client.connection;
  const { namespace } = client.options;
  try {
    const { customAttributes } = await operatorService.listSearchAttributes({ namespace });
    const missing = Object.entries(WANTED_ATTRIBUTES).filter(([name]) => !(name in (customAttributes ?? {})));
    if (missing.length > 0) await operatorService.addSearchAttributes({ namespace, searchAttributes: Object.fromEntries(missing) });
  } catch (error) {
    const { code } = error as { code?: number };
    // Another process was first, or it is not ours to add them.
    if (code === ALREADY_EXISTS || code === PERMISSION_DENIED || code === UNIMPLEMENTED) return;
    throw error;
  }
}

/** Whether Temporal answers within `timeoutMs`. */
export async function isTemporalReachable(client: Client, timeoutMs: number): Promise<boolean> {
  try {
    await client.connection.withDeadline(Date.now() + timeoutMs, () => client.workflowService.getSystemInfo({}));
    return true;
  } catch {
    return false;
  }
}
