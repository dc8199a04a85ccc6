/** Keeps a set of services running: starts them in order, restarts those that exit, and stops all in reverse order. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { RecordedProcess } from './leftovers';
import { sendSignal } from './leftovers';
import type { RunningServer } from './process';

const RESTART_DELAY_MS = 1_000;
const MAX_RESTARTS = 5;
const RESTART_WINDOW_MS = 60_000;

/** A service to keep running. */
export interface Service<T extends RunningServer = RunningServer> {
  name: string;
  /** Texts in its command line, by which a later start recognises it. */
  marks: string[];
  /** Starts it and resolves when it is ready. Must call `onSpawn` as soon as the pid is known. */
  start(onSpawn: (pid: number) => void): Promise<T>;
  /** Whether a restart would be pointless after this exit, for example because of invalid settings. */
  isFatal?(endedHow: string): boolean;
}

export interface SupervisorEvents {
  say(line: string): void;
  /** Called with the running processes, in the order in which to stop them, whenever they change. */
  onProcesses(processes: RecordedProcess[]): void;
  /** Called when a service cannot be kept running. */
  onGivenUp(reason: string): void;
}

export interface Supervisor {
  /** Starts a service and supervises it. @throws the error of its first start */
  run<T extends RunningServer>(service: Service<T>): Promise<T>;
  /** Stops all services in reverse order, one after the other. Disables restarts. */
  stopAll(): Promise<void>;
  /** Sends SIGKILL to all services at once. */
  killAll(): void;
}

interface SupervisedService {
  service: Service;
  pid?: number;
  /** Resolves when the current start has finished, successfully or not. */
  starting?: Promise<unknown>;
  running?: RunningServer;
}

/** Creates a supervisor without services. */
export function createSupervisor(events: SupervisorEvents): Supervisor {
  const services: SupervisedService[] = [];
  let stopping = false;

  const publish = () => {
    const alive = services.filter((entry) => entry.pid !== undefined);
    events.onProcesses(alive.map(({ service, pid = 0 }) => ({ name: service.name, pid, marks: service.marks })).reverse());
  };
  const start = async <T extends RunningServer>(entry: SupervisedService, service: Service<T>): Promise<T> => {
    const starting = service.start((pid) => {
      entry.pid = pid;
      publish();
    });
    entry.starting = starting.catch(() => undefined);
    try {
      const running = await starting;
      entry.running = running;
      void running.ended.then((how) => {
        markStopped(entry);
        if (!stopping) void restart(entry, how);
      });
      return running;
    } catch (error) {
      markStopped(entry);
      throw error;
    }
  };
  const markStopped = (entry: SupervisedService) => {
    delete entry.running;
    delete entry.pid;
  };
  const exitTimes = new Map<SupervisedService, number[]>();
  const restart = async (entry: SupervisedService, how: string): Promise<void> => {
    const { service } = entry;
    const recent = [...(exitTimes.get(entry) ?? []), Date.now()].filter((at) => Date.now() - at < RESTART_WINDOW_MS);
    exitTimes.set(entry, recent);
    if (service.isFatal?.(how)) return events.onGivenUp(`${service.name} exited (${how}), and a restart would not help`);
    if (recent.length > MAX_RESTARTS) return events.onGivenUp(`${service.name} exited ${recent.length} times within a minute (${how})`);
    events.say(`${service.name} exited unexpectedly (${how}); restarting it`);
    await sleep(RESTART_DELAY_MS);
    if (stopping) return;
    try {
      await start(entry, service);
      events.say(`${service.name} is running again`);
    } catch (error) {
      if (!stopping) await restart(entry, error instanceof Error ? error.message : String(error));
    }
  };

  return {
    async run(service) {
      if (stopping) throw new Error('stopped while starting');
      const entry: SupervisedService = { service };
      services.push(entry);
      return start(entry, service);
    },
    async stopAll() {
      stopping = true;
      for (const entry of [...services].reverse()) {
        if (entry.running === undefined && entry.pid === undefined) continue;
        events.say(`stopping ${entry.service.name}`);
        if (entry.running === undefined && entry.pid !== undefined) sendSignal(entry.pid, 'SIGTERM');
        await entry.starting;
        await entry.running?.stop();
      }
      events.onProcesses([]);
    },
    killAll() {
      stopping = true;
      for (const { pid } of services) if (pid !== undefined) sendSignal(pid, 'SIGKILL');
    },
  };
}
