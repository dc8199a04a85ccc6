/** Decides which proxy an outgoing request uses; one rule for HTTP, gRPC and callbacks. */
import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import type { ProxySettings } from './config';

/** The proxy for requests to `url`; undefined: none. Without HTTPS_PROXY, https requests use HTTP_PROXY, as in undici and gRPC. */
export function proxyFor(url: URL, { HTTP_PROXY, HTTPS_PROXY, NO_PROXY }: ProxySettings): URL | undefined {
  const proxy = (url.protocol === 'https:' ? HTTPS_PROXY : undefined) ?? HTTP_PROXY;
  if (proxy === undefined || isThisMachine(url.hostname)) return undefined;
  return NO_PROXY.some((entry) => excepts(entry, url)) ? undefined : new URL(proxy);
}

/** `user:password` of a proxy's URL, decoded; undefined if it has none. */
export function proxyLogin({ username, password }: URL): { username: string; password: string } | undefined {
  return username === '' ? undefined : { username: decodeURIComponent(username), password: decodeURIComponent(password) };
}

/** localhost, a loopback address, or the unspecified address, which connects to this machine as well. */
function isThisMachine(hostname: string): boolean {
  const host = bareHost(hostname);
  if (/(^|\.)localhost\.?$/i.test(host)) return true;
  return isIP(host) !== 0 && ['loopback', 'unspecified'].includes(ipaddr.process(host).range());
}

/**
 * Whether an entry of NO_PROXY covers the URL: `*`, an address, a range in CIDR notation, or a name with all names below it (with or without
 * a leading dot). `host:port` covers that port only.
 */
function excepts(entry: string, url: URL): boolean {
  if (entry === '*') return true;
  const host = bareHost(url.hostname).replace(/\.$/, '').toLowerCase();
  if (entry.includes('/')) return isInRange(host, entry);
  const [, named = entry, port] = /^(\[[^\]]+\]|[^:]+):(\d+)$/.exec(entry) ?? [];
  if (port !== undefined && port !== portOf(url)) return false;
  const name = bareHost(named)
    .replace(/^\*?\./, '')
    .toLowerCase();
  if (isIP(name) !== 0 && isIP(host) !== 0) return ipaddr.process(name).toString() === ipaddr.process(host).toString();
  return host === name || host.endsWith(`.${name}`);
}

function isInRange(host: string, range: string): boolean {
  if (isIP(host) === 0 || !ipaddr.isValidCIDR(range)) return false;
  const [network, bits] = ipaddr.parseCIDR(range);
  const address = ipaddr.process(host);
  return address.kind() === network.kind() && address.match(network, bits);
}

function portOf({ port, protocol }: URL): string {
  return port || (protocol === 'https:' ? '443' : '80');
}

function bareHost(hostname: string): string {
  return hostname.replace(/^\[|\]$/g, '');
}
