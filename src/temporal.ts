/** Connections to Temporal from the settings (address, namespace, TLS, API key), and what a namespace must have. */
import { Client, Connection, type ConnectionOptions } from '@temporalio/client';
import { type ClientConnectConfig, loadClientConnectConfig } from '@temporalio/envconfig';
import { searchAttributes } from '../workflows/contract';

const KEYWORD = 2;
const BOOL = 5;
const ALREADY_EXISTS = 6;

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
 * Registers the search attributes that workflows are started with. Does nothing where they exist.
 * @throws when the server refuses: Temporal Cloud wants them added by `tcld` or its UI (docs/production.md)
 */
export async function ensureSearchAttributes(client: Client): Promise<void> {
  const { connection } = client;
  const namespace = client.options.namespace;
  const wanted = { [searchAttributes.workspace]: KEYWORD, [searchAttributes.mode]: KEYWORD, [searchAttributes.attention]: BOOL };
  const { customAttributes } = await connection.operatorService.listSearchAttributes({ namespace });
  const missing = Object.fromEntries(Object.entries(wanted).filter(([name]) => !(name in (customAttributes ?? {}))));
  if (Object.keys(missing).length === 0) return;
  try {
    await connection.operatorService.addSearchAttributes({ namespace, searchAttributes: missing });
  } catch (error) {
    // Another process was first.
    if ((error as { code?: number }).code !== ALREADY_EXISTS) throw error;
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
