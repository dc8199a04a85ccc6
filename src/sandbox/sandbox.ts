/** The sandbox: doubles of Kapso and of the models behind one port of this machine. */
import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import express, { type NextFunction, type Request, type Response } from 'express';
import { controlRoutes } from './control';
import { KapsoDouble, type KapsoDoubleOptions } from './kapso';
import { ModelDouble } from './models';

export interface SandboxOptions extends KapsoDoubleOptions {
  /** Port on 127.0.0.1; 0 for a free one. */
  port: number;
}

/** A running sandbox. */
export interface Sandbox {
  /** Address without a trailing slash: Kapso's base address, and the place of /sandbox. */
  url: string;
  /** Base address of the models, ending in /v1. */
  modelsUrl: string;
  port: number;
  kapso: KapsoDouble;
  models: ModelDouble;
  /** Cuts all connections, and gives up webhooks that are under way. */
  close(): Promise<void>;
}

/** Starts the sandbox. @throws the server's error, such as EADDRINUSE */
export async function startSandbox(options: SandboxOptions): Promise<Sandbox> {
  const kapso = new KapsoDouble(options);
  const models = new ModelDouble();
  await models.start();
  const server = createServer(listener(kapso, models));
  server.keepAliveTimeout = 60_000;
  try {
    const port = await listen(server, options.port);
    const url = `http://127.0.0.1:${port}`;
    return { url, modelsUrl: `${url}/v1`, port, kapso, models, close: () => close(server, kapso, models) };
  } catch (error) {
    await Promise.all([models.close(), kapso.close()]);
    throw error;
  }
}

/** Models are asked the most, and aimock needs no router before it. */
function listener(kapso: KapsoDouble, models: ModelDouble): RequestListener {
  const app = express();
  app.disable('x-powered-by').disable('etag');
  app.use('/sandbox', controlRoutes(kapso, models));
  app.use(kapso.routes());
  app.use((_request, response) => {
    response.status(404).json({ error: 'Not found' });
  });
  app.use(refuseBrokenBody);
  return (request, response) => {
    if (request.url?.startsWith('/v1/')) models.handle(request, response);
    else app(request, response);
  };
}

/** Express knows an error handler by its four parameters. */
function refuseBrokenBody(error: unknown, _request: Request, response: Response, next: NextFunction): void {
  if (response.headersSent) {
    next(error);
    return;
  }
  const status = typeof error === 'object' && error !== null && 'status' in error ? Number(error.status) : 500;
  response.status(status).json({ error: status === 500 ? 'The sandbox failed' : 'The body could not be read' });
}

async function listen(server: Server, port: number): Promise<number> {
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

async function close(server: Server, kapso: KapsoDouble, models: ModelDouble): Promise<void> {
  const closed = new Promise((resolve) => server.close(resolve));
  server.closeAllConnections();
  await Promise.all([closed, kapso.close(), models.close()]);
}
