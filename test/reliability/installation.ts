/** Parley as real processes, with a sandbox that delivers and repeats webhooks as Kapso does, and what can be taken away from it. */
import { freePort } from '../../src/local/embedded/ports';
import { startProxy, type TcpProxy } from '../support/proxy';
import { type RunningProcess, type System, startSystem } from '../support/system';
import type { Servers, Stops } from './servers';

/** Kapso's retries: 10 s and 40 s after the first attempt. */
const KAPSO_RETRY_DELAYS_MS = [10_000, 40_000];

/** A process that can be killed and started again. */
export interface KillableProcess {
  kill(): Promise<void>;
  start(): Promise<void>;
}

export interface Installation {
  servers: Servers;
  system: System;
  apis: KillableProcess[];
  workers: KillableProcess[];
  /** Before Kapso's API, and before the models. */
  kapso: TcpProxy;
  models: TcpProxy;
}

/** Starts as many APIs and workers as `count`. Webhooks go to the APIs in turn. */
export async function startInstallation(servers: Servers, count: number, stops: Stops): Promise<Installation> {
  const sandboxPort = await freePort(0);
  const kapso = await startProxy(`127.0.0.1:${sandboxPort}`);
  const models = await startProxy(`127.0.0.1:${sandboxPort}`);
  stops.push(kapso.close, models.close);
  const secondPort = await freePort(0, [sandboxPort]);
  const urls: string[] = [];
  let next = 0;
  const nextUrl = () => {
    next += 1;
    return urls[next % urls.length] ?? '';
  };
  const system = await startSystem({
    ...{ databaseUrl: servers.databaseUrl, temporalAddress: servers.temporalAddress, workers: count },
    sandbox: { port: sandboxPort, webhookUrls: nextUrl, webhookRetryDelaysMs: KAPSO_RETRY_DELAYS_MS },
    environment: () => ({
      KAPSO_BASE_URL: `http://127.0.0.1:${kapso.port}`,
      AI_PROVIDERS: 'openai',
      OPENAI_API_KEY: 'reliability-key',
      OPENAI_BASE_URL: `http://127.0.0.1:${models.port}/v1`,
      SEND_CONFIRM_MS: '60000',
    }),
  });
  stops.push(system.close);
  urls.push(`${system.apiUrl}/webhook/kapso`);
  const apis = [killableProcess(system.api, () => system.startApi())];
  if (count > 1) {
    const startSecond = () => system.startApi({ PORT: String(secondPort) });
    apis.push(killableProcess(await startSecond(), startSecond));
    urls.push(`http://127.0.0.1:${secondPort}/webhook/kapso`);
  }
  const workers = system.workers.map((worker) => killableProcess(worker, () => system.startWorker()));
  return { servers, system, apis, workers, kapso, models };
}

function killableProcess(first: RunningProcess, startAgain: () => Promise<RunningProcess>): KillableProcess {
  let running = first;
  return {
    kill: () => running.kill(),
    async start() {
      running = await startAgain();
    },
  };
}
