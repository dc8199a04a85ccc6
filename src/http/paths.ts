/** The paths of the OpenAPI document, as the application asks for them: for the labels of metrics and for wrong methods. */
import type { RequestHandler } from 'express';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import type { ApiMetrics } from '../platform/metrics';
import { sendProblem } from './errors';
import { onceEnded } from './request-end';

const METHODS = ['get', 'put', 'post', 'patch', 'delete'] as const;

export interface KnownPath {
  /** As the document writes it: `/api/v1/conversations/{id}`. */
  template: string;
  methods: ReadonlySet<string>;
  /** The value of `Allow` (RFC 9110, section 10.2.1). */
  allow: string;
}

export type PathFinder = (path: string) => KnownPath | undefined;

/** Finds the document's path of an address, as express would: any case, with or without a slash at the end. */
export function pathFinder(paths: ZodOpenApiPathsObject): PathFinder {
  const known = Object.entries(paths).map(([template, item]) =>
    knownPath(
      template,
      METHODS.filter((method) => item[method]),
    ),
  );
  // Webhooks have fixed addresses, and are what comes most often.
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

function knownPath(template: string, documented: readonly string[]): KnownPath {
  const methods = documented.map((method) => method.toUpperCase());
  const all = [...methods, ...(methods.includes('GET') ? ['HEAD'] : []), 'OPTIONS'];
  return { template, methods: new Set(all), allow: all.join(', ') };
}

/** Measures each request by the document's path, from its head to the end of its answer. */
export function measureRequests(find: PathFinder, metrics: ApiMetrics): RequestHandler {
  return (request, response, next) => {
    const { method, path } = request;
    onceEnded(response, ({ status, seconds }) =>
      metrics.requestAnswered({ method, route: find(path)?.template ?? 'other', status, seconds }),
    );
    next();
  };
}

/** Answers OPTIONS, and methods that a known path does not have, before anybody asks for a key. */
export function refuseWrongMethods(find: PathFinder): RequestHandler {
  return (request, response, next) => {
    const known = find(request.path);
    if (!known || (known.methods.has(request.method) && request.method !== 'OPTIONS')) return next();
    response.set('Allow', known.allow);
    if (request.method === 'OPTIONS') response.status(204).end();
    else sendProblem(response, 405, `this address takes ${known.allow}`);
  };
}
