/** State shared by the parts of `npm start`, and the choice of ports. */
import type { Settings } from '../platform/config';
import type { RunningInstance } from './embedded/instance';
import { freePort, isFree } from './embedded/ports';
import type { Supervisor } from './embedded/supervisor';
import { say } from './terminal';

/** Environment variables. */
export type Environment = Record<string, string | undefined>;

/** The state of one `npm start`. */
export interface StartContext {
  settings: Settings;
  environment: Environment;
  supervisor: Supervisor;
  /** Ports already assigned to a service. */
  ports: number[];
  /** Makes the instance known to the other commands. */
  publish(instance: InstanceInfo): void;
}

/** What other commands learn about the running instance, without its process ids. */
export type InstanceInfo = Omit<RunningInstance, 'pid' | 'pids'>;

/** The API's port. An explicit PORT is never replaced, because webhook senders are configured with it. @throws Error if it is taken */
export async function chooseApiPort({ settings, environment, ports }: StartContext): Promise<number> {
  if (environment.PORT?.trim() && !(await isFree(settings.PORT))) {
    throw new Error(`PORT: another program is listening on ${settings.PORT}. Stop it, or set PORT to a free port.`);
  }
  return choosePort(settings.PORT, ports);
}

/** `preferred` if it is free, otherwise the next free port; adds it to `assigned`. */
export async function choosePort(preferred: number, assigned: number[]): Promise<number> {
  const port = await freePort(preferred, assigned);
  if (port !== preferred) say(`port ${preferred} is taken; using ${port}`);
  assigned.push(port);
  return port;
}
