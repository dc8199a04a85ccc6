/** Connects to Temporal according to the settings (address, namespace, TLS, API key). */
import { Client, Connection, type ConnectionOptions, isGrpcServiceError } from '@temporalio/client';
import { type ClientConnectConfig, loadClientConnectConfig } from '@temporalio/envconfig';
import { readProxies, SettingsError } from './config';
import { temporalProblem } from './connection-problems';
import { proxyFor, proxyLogin } from './proxies';

/** How to reach Temporal, as options of a worker's connection. */
export type TemporalConfig = ClientConnectConfig & { namespace: string };

/** Temporal's default. */
const DEFAULT_ADDRESS = 'localhost:7233';

/**
 * Reads `TEMPORAL_*` as defined by Temporal's environment configuration, and the proxy for the address; ignores the Temporal CLI's
 * configuration file. @throws SettingsError
 */
export function temporalConfig(environment: Record<string, string | undefined>): TemporalConfig {
  const present = Object.fromEntries(Object.entries(environment).filter((entry): entry is [string, string] => Boolean(entry[1]?.trim())));
  const { connectionOptions, namespace = 'default' } = loadClientConnectConfig({ disableFile: true, overrideEnvVars: present });
  const proxy = temporalProxy(addressOf(connectionOptions), environment);
  return { connectionOptions: { ...connectionOptions, ...(proxy && { proxy }) }, namespace };
}

/** `host:port`. @throws SettingsError */
function addressOf({ address = DEFAULT_ADDRESS }: { address?: string }): string {
  const bare = address.replace(/^https?:\/\//, '');
  if (!/^(\[[\da-fA-F:.]+\]|[^\s:/@[\]]+)(:\d{1,5})?$/.test(bare) || !URL.canParse(`https://${bare}`))
    throw new SettingsError(['TEMPORAL_ADDRESS: must be host:port']);
  return /:\d+$/.test(bare) ? bare : `${bare}:7233`;
}

/** gRPC uses a tunnel (CONNECT) even without TLS, so HTTPS_PROXY applies. */
function temporalProxy(address: string, environment: Record<string, string | undefined>): TemporalConfig['connectionOptions']['proxy'] {
  const proxy = proxyFor(new URL(`https://${address}`), readProxies(environment));
  if (proxy === undefined) return undefined;
  if (proxy.protocol !== 'http:')
    throw new SettingsError(['HTTPS_PROXY: Temporal can be reached through an http:// proxy only; list its host in NO_PROXY']);
  const basicAuth = proxyLogin(proxy);
  return { type: 'http-connect', targetHost: `${proxy.hostname}:${proxy.port || '80'}`, ...(basicAuth && { basicAuth }) };
}

/** A client that connects on its first call, so that a process can start while Temporal is unreachable. */
export function openTemporalClient({ connectionOptions, namespace }: TemporalConfig): Client {
  return new Client({ connection: Connection.lazy(clientOptions(connectionOptions)), namespace });
}

/**
 * How soon the client notices that Temporal is back. By default, gRPC pauses for up to two minutes between two attempts to connect, and the
 * client pings a silent connection after 30 s and closes it 15 s later. A server may reject pings at intervals of 10 s or less.
 */
const RECOVERY = { 'grpc.max_reconnect_backoff_ms': 2_000, 'grpc.keepalive_time_ms': 15_000, 'grpc.keepalive_timeout_ms': 5_000 };

/**
 * The options for the client library, which differ from the worker's only in the proxy. By itself, the library would obey the lower-case
 * variables only, even for this machine.
 */
function clientOptions({ proxy, ...options }: TemporalConfig['connectionOptions']): ConnectionOptions {
  const { channelArgs, ...rest } = options as ConnectionOptions;
  const direct = { ...RECOVERY, ...channelArgs, 'grpc.enable_http_proxy': 0 };
  if (!proxy) return { ...rest, channelArgs: direct };
  const target = addressOf(rest);
  const { username = '', password = '' } = proxy.basicAuth ?? {};
  return {
    ...rest,
    address: proxy.targetHost,
    channelArgs: {
      ...direct,
      'grpc.http_connect_target': `dns:${target}`,
      'grpc.default_authority': target,
      ...(proxy.basicAuth && { 'grpc.http_connect_creds': `${username}:${password}` }),
    },
  };
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

const INVALID_ARGUMENT = 3;

/** Whether Temporal was reached and rejects the request itself: too large, or something that the namespace does not have. */
export function isTemporalRefusal(error: unknown): boolean {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
  return isGrpcServiceError(cause) && cause.code === INVALID_ARGUMENT;
}

/** Timeout of the first request of a process, in ms. */
const REACH_TIMEOUT_MS = 5_000;

/** Checks that Temporal has the namespace. @throws ConnectionProblem, or any other error unchanged */
export async function reachTemporal(client: Client, { connectionOptions, namespace }: TemporalConfig): Promise<void> {
  try {
    await client.connection.withDeadline(Date.now() + REACH_TIMEOUT_MS, () => client.workflowService.describeNamespace({ namespace }));
  } catch (error) {
    throw temporalProblem(error, { address: addressOf(connectionOptions), namespace });
  }
}
