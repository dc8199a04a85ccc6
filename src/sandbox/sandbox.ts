/** The sandbox: doubles of Kapso, Vapi and the models behind one local port. */
import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import express, { type NextFunction, type Request, type Response } from 'express';
import { describeSandbox } from './control/help';
import { controlRoutes, type Doubles } from './control/routes';
import { KapsoDouble, type KapsoDoubleOptions } from './kapso/double';
import { ModelDouble } from './models/double';
import { VapiDouble, type VapiDoubleOptions } from './vapi/double';

/** Options of the sandbox; those of the Kapso double are at the top level. */
export interface SandboxOptions extends KapsoDoubleOptions {
  /** Port on 127.0.0.1; 0 picks a free one. */
  port: number;
  /** Without `serverUrl`, calls without a server of their own send no events; without `auth`, webhooks carry Kapso's secret. */
  vapi?: Partial<VapiDoubleOptions> | undefined;
}

/** A running sandbox. */
export interface Sandbox {
  /** URL without a trailing slash: Kapso's base URL, and the parent of /sandbox. */
  url: string;
  /** Base URL of the models, ending in /v1. */
  modelsUrl: string;
  /** Vapi's base URL. */
  vapiUrl: string;
  port: number;
  kapso: KapsoDouble;
  vapi: VapiDouble;
  models: ModelDouble;
  /** Cuts all connections and abandons pending webhooks. */
  close(): Promise<void>;
}

/** Starts the sandbox. @throws the server's error, such as EADDRINUSE */
export async function startSandbox(options: SandboxOptions): Promise<Sandbox> {
  const { log, webhookSecret } = options;
  const kapso = new KapsoDouble(options);
  const vapi = new VapiDouble({ log, auth: { scheme: 'secret', secret: webhookSecret }, memoryDir: options.memoryDir, ...options.vapi });
  const models = new ModelDouble();
  const doubles = { kapso, vapi, models };
  await models.start();
  const server = createServer(listener(doubles));
  server.keepAliveTimeout = 60_000;
  try {
    const port = await listen(server, options.port);
    const url = `http://127.0.0.1:${port}`;
    return { url, modelsUrl: `${url}/v1`, vapiUrl: `${url}/vapi`, port, ...doubles, close: () => close(server, doubles) };
  } catch (error) {
    await closeAll(doubles);
    throw error;
  }
}

/** Routes model requests past Express: they are the most frequent, and aimock needs no router. */
function listener(doubles: Doubles): RequestListener {
  const { kapso, vapi, models } = doubles;
  const app = express();
  app.disable('x-powered-by').disable('etag');
  app.get(['/', '/docs', '/sandbox'], (_request, response) => describeSandbox(response));
  app.use('/sandbox', controlRoutes(doubles));
  app.use('/vapi', vapi.routes());
  app.use(kapso.routes());
  app.use((_request, response) => {
    response.status(404).json({ error: 'Not found' });
  });
  app.use(handleError);
  return (request, response) => {
    if (request.url?.startsWith('/v1/')) models.handle(request, response);
    else app(request, response);
  };
}

/** Express recognises an error handler by its four parameters. */
function handleError(error: unknown, _request: Request, response: Response, next: NextFunction): void {
  if (response.headersSent) {
    next(error);
    return;
  }
  const status = typeof error === 'object' && error !== null && 'status' in error ? Number(error.status) : 500;
  const reason = error instanceof Error ? error.message : String(error);
  response.status(status).json({ error: status === 500 ? 'The sandbox failed' : `The body could not be read: ${reason}` });
}

async function listen(server: Server, port: number): Promise<number> {
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

async function close(server: Server, doubles: Doubles): Promise<void> {
  const closed = new Promise((resolve) => server.close(resolve));
  server.closeAllConnections();
  await Promise.all([closed, closeAll(doubles)]);
}

async function closeAll({ kapso, vapi, models }: Doubles): Promise<void> {
  await Promise.all([kapso.close(), vapi.close(), models.close()]);
}
