/** Connects to Temporal according to the settings (address, namespace, TLS, API key). */
import { Client, Connection, type ConnectionOptions } from '@temporalio/client';
import { type ClientConnectConfig, loadClientConnectConfig } from '@temporalio/envconfig';

/** Reads `TEMPORAL_*` as defined by Temporal's environment configuration; ignores the Temporal CLI's configuration file. */
export function temporalConfig(environment: Record<string, string | undefined>): ClientConnectConfig & { namespace: string } {
  const present = Object.fromEntries(Object.entries(environment).filter((entry): entry is [string, string] => Boolean(entry[1]?.trim())));
  const config = loadClientConnectConfig({ disableFile: true, overrideEnvVars: present });
  return { ...config, namespace: config.namespace ?? 'default' };
}

/** A client that connects on its first call, so that a process can start while Temporal is unreachable. */
export function openTemporalClient(config: ClientConnectConfig & { namespace: string }): Client {
  // NativeConnectionOptions and ConnectionOptions are the same for everything that the environment can set.
  const connection = Connection.lazy(config.connectionOptions as ConnectionOptions);
  return new Client({ connection, namespace: config.namespace });
}

/** Whether Temporal responds within `timeoutMs`. */
export async function isTemporalReachable(client: Client, timeoutMs: number): Promise<boolean> {
  try {
    await client.connection.withDeadline(Date.now() + timeoutMs, () => client.workflowService.getSystemInfo({}));
    return true;
  } catch {
    return false;
  }
}
