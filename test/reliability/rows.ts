/** The rows of the outage matrix: what is taken away, and for how long. */
import type { Installation } from './installation';

export interface Row {
  /** For `--only`. */
  id: string;
  title: string;
  outageMs: number;
  /** Whether all webhooks must get a 200 at the first attempt: an API and one of the two stores are always up. */
  takesAlways: boolean;
  begin(installation: Installation): Promise<void>;
  end(installation: Installation): Promise<void>;
}

/** A row that cannot be run yet. */
export interface MissingRow {
  id: string;
  title: string;
  missing: string;
}

const HALF_A_MINUTE_MS = 30_000;

export const ROWS: readonly (Row | MissingRow)[] = [
  {
    ...{ id: 'temporal', title: 'Temporal killed for 30 s', outageMs: HALF_A_MINUTE_MS, takesAlways: true },
    begin: ({ servers }) => servers.temporal.kill(),
    end: ({ servers }) => servers.temporal.start(),
  },
  {
    ...{ id: 'temporal-long', title: 'Temporal killed for 3 min', outageMs: 180_000, takesAlways: true },
    begin: ({ servers }) => servers.temporal.kill(),
    end: ({ servers }) => servers.temporal.start(),
  },
  {
    ...{ id: 'postgres', title: 'PostgreSQL killed for 30 s', outageMs: HALF_A_MINUTE_MS, takesAlways: true },
    begin: ({ servers }) => servers.postgres.kill(),
    end: ({ servers }) => servers.postgres.start(),
  },
  {
    ...{ id: 'both', title: 'Both killed for 30 s', outageMs: HALF_A_MINUTE_MS, takesAlways: false },
    async begin({ servers }) {
      await Promise.all([servers.temporal.kill(), servers.postgres.kill()]);
    },
    async end({ servers }) {
      // Temporal may store its data in PostgreSQL.
      await servers.postgres.start();
      await servers.temporal.start();
    },
  },
  {
    ...{ id: 'api', title: 'API killed, started again after 5 s', outageMs: 5_000, takesAlways: false },
    begin: ({ apis }) => first(apis).kill(),
    end: ({ apis }) => first(apis).start(),
  },
  {
    ...{ id: 'worker', title: 'Worker killed, started again after 5 s', outageMs: 5_000, takesAlways: true },
    begin: ({ workers }) => first(workers).kill(),
    end: ({ workers }) => first(workers).start(),
  },
  {
    ...{ id: 'kapso', title: 'Kapso unreachable for 30 s', outageMs: HALF_A_MINUTE_MS, takesAlways: true },
    begin: ({ kapso }) => kapso.down(),
    end: ({ kapso }) => kapso.up(),
  },
  {
    ...{ id: 'model', title: 'Model unreachable for 30 s', outageMs: HALF_A_MINUTE_MS, takesAlways: true },
    begin: ({ models }) => models.down(),
    end: ({ models }) => models.up(),
  },
  {
    ...{ id: 'cut', title: 'Connections cut after each send for 30 s', outageMs: HALF_A_MINUTE_MS, takesAlways: true },
    async begin({ system }) {
      system.sandbox.kapso.fault({ on: 'send', answer: 'cut', accepted: true });
    },
    async end({ system }) {
      system.sandbox.kapso.clearFaults();
    },
  },
  {
    ...{ id: 'webhook-paused', title: "Kapso's webhook paused for 5 min" },
    missing: 'needs the repair from Kapso’s message list',
  },
];

function first<T>([one]: readonly T[]): T {
  if (one === undefined) throw new Error('nothing is running');
  return one;
}
