/** Looks up the paths of the OpenAPI document: for metric labels, and to reject unsupported methods. */
import type { RequestHandler } from 'express';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import type { ApiMetrics } from '../platform/metrics';
import { sendProblem } from './errors';
import { type Permission, permissionOf } from './permissions';
import { onceEnded } from './request-end';

const METHODS = ['get', 'put', 'post', 'patch', 'delete'] as const;

export interface KnownPath {
  /** As in the document: `/api/v1/conversations/{id}`. */
  template: string;
  methods: ReadonlySet<string>;
  /** The value of `Allow` (RFC 9110, section 10.2.1). */
  allow: string;
  /** What each method requires of a key. */
  permissions: ReadonlyMap<string, Permission>;
}

export type PathFinder = (path: string) => KnownPath | undefined;

/** Finds the document's path for a request path, as Express would: case-insensitive, with or without a trailing slash. */
export function pathFinder(paths: ZodOpenApiPathsObject): PathFinder {
  const known = Object.entries(paths).map(([template, item]) => knownPath(template, item));
  // Webhooks have fixed paths and are the most frequent requests.
  const fixed = new Map(known.filter(({ template }) => !template.includes('{')).map((path) => [path.template, path]));
  const withParameters = known
    .filter(({ template }) => template.includes('{'))
    .map((path) => ({ path, pattern: new RegExp(`^${path.template.replaceAll('.', '\\.').replaceAll(/\{[^}]+\}/g, '[^/]+')}$`, 'i') }));
  return (address) => {
    const exact = fixed.get(address);
    if (exact) return exact;
    const path = address.length > 1 && address.endsWith('/') ? address.slice(0, -1) : address;
    return fixed.get(path.toLowerCase()) ?? withParameters.find(({ pattern }) => pattern.test(path))?.path;
  };
}

function knownPath(template: string, item: ZodOpenApiPathsObject[string]): KnownPath {
  const operations = METHODS.flatMap((method) => {
    const operation = item[method];
    return operation ? [{ method: method.toUpperCase(), permission: permissionOf(operation) }] : [];
  });
  const methods = operations.map(({ method }) => method);
  const all = [...methods, ...(methods.includes('GET') ? ['HEAD'] : []), 'OPTIONS'];
  const permissions = new Map(operations.flatMap(({ method, permission }) => (permission ? [[method, permission] as const] : [])));
  return { template, methods: new Set(all), allow: all.join(', '), permissions };
}

/** Measures each request by the document's path, from its headers to the end of its response. */
export function measureRequests(find: PathFinder, metrics: ApiMetrics): RequestHandler {
  return (request, response, next) => {
    const { method, path } = request;
    onceEnded(response, ({ status, seconds }) =>
      metrics.requestAnswered({ method, route: find(path)?.template ?? 'other', status, seconds }),
    );
    next();
  };
}

/** Answers OPTIONS, and rejects methods that a known path does not support, before a key is required. */
export function refuseWrongMethods(find: PathFinder): RequestHandler {
  return (request, response, next) => {
    const known = find(request.path);
    if (!known || (known.methods.has(request.method) && request.method !== 'OPTIONS')) return next();
    response.set('Allow', known.allow);
    if (request.method === 'OPTIONS') response.status(204).end();
    else sendProblem(response, 405, `this path supports ${known.allow}`);
  };
}
