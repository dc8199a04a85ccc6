/** The bare workflow as it is measured: one process that signals, and one worker. */
import { randomUUID } from 'node:crypto';
import { freshWamid } from '../../src/sandbox/kapso/store';
import type { Launch } from './child';
import type { Acknowledged, BenchMessage, Ledger, Side } from './load';
import type { BareOrder, FromBareDriver, FromBareWorker } from './protocol';

/** Starts both processes. A message is done when its third activity runs. */
export async function startBareWorkflow({
  temporal,
  tunedBare,
  ledger,
  launch,
}: {
  temporal: { pid: number; address: string };
  /** The worker gets Parley's pollers and compression. */
  tunedBare: boolean;
  ledger: Ledger;
  launch: Launch;
}): Promise<Side> {
  const waiting = new Map<string, { resolve: (acknowledged: Acknowledged) => void; reject: (error: Error) => void }>();
  const environment = {
    BENCH_TEMPORAL_ADDRESS: temporal.address,
    BENCH_TASK_QUEUE: 'bench-bare',
    ...(tunedBare ? { BENCH_TUNED: 'yes' } : {}),
  };
  const worker = await launch('bare worker', {
    entry: 'test/bench/bare-worker.ts',
    environment,
    onMessage: (received) => {
      const message = received as FromBareWorker;
      if (message.type === 'done') ledger.done(message.mark, message.atMs);
    },
  });
  const driver = await launch('bare driver', {
    entry: 'test/bench/bare-driver.ts',
    environment,
    onMessage: (received) => {
      const message = received as FromBareDriver;
      if (message.type === 'ready') return;
      if (message.type === 'acknowledged') waiting.get(message.mark)?.resolve(message);
      else waiting.get(message.mark)?.reject(new Error(message.reason));
      waiting.delete(message.mark);
    },
  });
  return {
    name: 'bare',
    pids: { entrance: driver.pid, worker: worker.pid, temporal: temporal.pid },
    prepare: async () => undefined,
    send: ({ mark, customer }) =>
      new Promise((resolve, reject) => {
        waiting.set(mark, { resolve, reject });
        driver.send({ type: 'signal', mark, workflowId: `bare-${customer}`, received: delivery({ mark, customer }) } satisfies BareOrder);
      }),
    settle: async () => undefined,
  };
}

/** The signal payload that the API sends for the same message. */
function delivery({ mark, customer }: BenchMessage): BareOrder['received'] {
  return {
    contact: { phone: customer, name: 'Bench Customer' },
    messages: [{ id: randomUUID(), providerMessageId: freshWamid(), kind: 'text', text: mark, sentAtMs: Date.now() }],
  };
}
