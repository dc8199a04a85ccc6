/** What every part of `npm start` shares. */
import type { Settings } from '../platform/config';
import type { RunningInstance } from './embedded/instance';
import { freePort, isFree } from './embedded/ports';
import type { Supervisor } from './embedded/supervisor';
import { say } from './terminal';

export type Environment = Record<string, string | undefined>;

export interface Start {
  settings: Settings;
  environment: Environment;
  supervisor: Supervisor;
  /** Promised to a service; free or not. */
  ports: number[];
  /** Tells other commands where everything is. */
  publish(found: FoundInstance): void;
}

export type FoundInstance = Omit<RunningInstance, 'pid' | 'pids'>;

/** The port that webhooks are sent to is configured elsewhere: one that was asked for is taken or refused, never replaced. */
export async function chooseApiPort({ settings, environment, ports }: Start): Promise<number> {
  if (environment.PORT?.trim() && !(await isFree(settings.PORT))) {
    throw new Error(`PORT: another program listens on ${settings.PORT} already. Stop it, or set PORT to a free one.`);
  }
  return choosePort(settings.PORT, ports);
}

export async function choosePort(preferred: number, taken: number[]): Promise<number> {
  const port = await freePort(preferred, taken);
  if (port !== preferred) say(`port ${preferred} is taken: ${port} instead`);
  taken.push(port);
  return port;
}
