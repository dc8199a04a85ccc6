/** Keeps a set of processes running: starts them in order, restarts one that ends by itself, stops all in the opposite order. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { RecordedProcess } from './leftovers';
import { signal } from './leftovers';

const RESTART_PAUSE_MS = 1_000;
const RESTARTS_AT_MOST = 5;
const RESTARTS_WITHIN_MS = 60_000;

/** A process that runs and can be stopped. */
export interface Running {
  readonly pid: number;
  /** Resolves when it has ended, with how. Never rejects. */
  readonly ended: Promise<string>;
  stop(): Promise<void>;
}

export interface Service<T extends Running = Running> {
  name: string;
  /** Texts in its command line, by which a later start knows it. */
  marks: string[];
  /** Starts it and resolves when it can be used. Tells its pid as soon as there is one. */
  start(onSpawn: (pid: number) => void): Promise<T>;
  /** Ends that no restart can help, such as wrong settings. */
  isHopeless?(endedHow: string): boolean;
}

export interface SupervisorEvents {
  say(line: string): void;
  /** The processes that run now, in the order in which they are to be stopped. */
  onProcesses(processes: RecordedProcess[]): void;
  /** A service cannot be kept running. */
  onGivenUp(reason: string): void;
}

export interface Supervisor {
  /** Starts the service for the first time. @throws what its start throws */
  run<T extends Running>(service: Service<T>): Promise<T>;
  /** Stops all, the last started first, each awaited. No restarts from here on. */
  stopAll(): Promise<void>;
  /** SIGKILL to all, at once. */
  killAll(): void;
}

interface Kept {
  service: Service;
  pid?: number;
  /** Settles when a start has come to its end, either way. */
  starting?: Promise<unknown>;
  running?: Running;
}

/** A supervisor without services. */
export function createSupervisor(events: SupervisorEvents): Supervisor {
  const kept: Kept[] = [];
  let stopping = false;

  const publish = () => {
    const alive = kept.filter((entry) => entry.pid !== undefined);
    events.onProcesses(alive.map(({ service, pid = 0 }) => ({ name: service.name, pid, marks: service.marks })).reverse());
  };
  const start = async <T extends Running>(entry: Kept, service: Service<T>): Promise<T> => {
    const starting = service.start((pid) => {
      entry.pid = pid;
      publish();
    });
    entry.starting = starting.catch(() => undefined);
    try {
      const running = await starting;
      entry.running = running;
      void running.ended.then((how) => {
        forget(entry);
        if (!stopping) void restart(entry, how);
      });
      return running;
    } catch (error) {
      forget(entry);
      throw error;
    }
  };
  const forget = (entry: Kept) => {
    delete entry.running;
    delete entry.pid;
  };
  const deaths = new Map<Kept, number[]>();
  const restart = async (entry: Kept, how: string): Promise<void> => {
    const { service } = entry;
    const recent = [...(deaths.get(entry) ?? []), Date.now()].filter((at) => Date.now() - at < RESTARTS_WITHIN_MS);
    deaths.set(entry, recent);
    if (service.isHopeless?.(how)) return events.onGivenUp(`${service.name} ended (${how}), and a restart would not help`);
    if (recent.length > RESTARTS_AT_MOST) return events.onGivenUp(`${service.name} ended ${recent.length} times within a minute (${how})`);
    events.say(`${service.name} ended unexpectedly (${how}): restarting it`);
    await sleep(RESTART_PAUSE_MS);
    if (stopping) return;
    try {
      await start(entry, service);
      events.say(`${service.name} runs again`);
    } catch (error) {
      if (!stopping) await restart(entry, error instanceof Error ? error.message : String(error));
    }
  };

  return {
    async run(service) {
      if (stopping) throw new Error('stopped while starting');
      const entry: Kept = { service };
      kept.push(entry);
      return start(entry, service);
    },
    async stopAll() {
      stopping = true;
      for (const entry of [...kept].reverse()) {
        if (entry.running === undefined && entry.pid === undefined) continue;
        events.say(`stopping ${entry.service.name}`);
        if (entry.running === undefined && entry.pid !== undefined) signal(entry.pid, 'SIGTERM');
        await entry.starting;
        await entry.running?.stop();
      }
      events.onProcesses([]);
    },
    killAll() {
      stopping = true;
      for (const { pid } of kept) if (pid !== undefined) signal(pid, 'SIGKILL');
    },
  };
}
