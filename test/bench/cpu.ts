/** CPU time of processes, from Linux's /proc. Not measured on other systems. */
import { readdirSync, readFileSync } from 'node:fs';
import { platform } from 'node:os';

/** Linux reports times in hundredths of a second, whatever the kernel's tick rate. */
const MS_PER_TICK = 10;

interface ProcessTimes {
  parent: number;
  own: number;
  /** CPU time of children that have exited and were waited for. */
  reaped: number;
}

/** Whether CPU time can be measured on this system. */
export const canMeasureCpu = platform() === 'linux';

/**
 * CPU milliseconds so far of each process with all its descendants; NaN if not measurable. Includes descendants that have exited, through
 * their parent's `reaped` time: PostgreSQL's connection processes come and go between two readings.
 */
export function cpuOf<K extends string>(pids: Record<K, number>): Record<K, number> {
  const processes = canMeasureCpu ? readProcesses() : new Map<number, ProcessTimes>();
  const children = new Map<number, number[]>();
  for (const [pid, { parent }] of processes) children.set(parent, [...(children.get(parent) ?? []), pid]);
  const total = (pid: number): number => {
    const times = processes.get(pid);
    if (times === undefined) return 0;
    return times.own + times.reaped + (children.get(pid) ?? []).reduce((sum, child) => sum + total(child), 0);
  };
  const entries = (Object.entries(pids) as [K, number][]).map(([name, pid]) => [name, canMeasureCpu ? total(pid) : Number.NaN] as const);
  return Object.fromEntries(entries) as Record<K, number>;
}

function readProcesses(): Map<number, ProcessTimes> {
  const found = new Map<number, ProcessTimes>();
  for (const name of readdirSync('/proc')) {
    const times = /^\d+$/.test(name) ? readTimes(name) : undefined;
    if (times !== undefined) found.set(Number(name), times);
  }
  return found;
}

/** Fields as in proc(5), counted after the command name, which is in parentheses and may itself contain spaces and parentheses. */
function readTimes(pid: string): ProcessTimes | undefined {
  try {
    const line = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = line
      .slice(line.lastIndexOf(')') + 2)
      .split(' ')
      .map(Number);
    const [, parent = 0] = fields;
    const [user = 0, system = 0, reapedUser = 0, reapedSystem = 0] = fields.slice(11, 15);
    return { parent, own: (user + system) * MS_PER_TICK, reaped: (reapedUser + reapedSystem) * MS_PER_TICK };
  } catch {
    // It exited after the listing.
    return undefined;
  }
}
