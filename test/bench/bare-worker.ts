/**
 * The worker of the bare workflow, as the SDK makes it: its own polls and compression, or the product's when `BENCH_TUNED` is set.
 * A task of the sticky queue waits as long as with the product's worker, always.
 */
import { once } from 'node:events';
import { join } from 'node:path';
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { compression, polls, stickyTimeout } from '../../src/processes/worker-tuning';
import type { BareActivities } from './bare-workflow';
import { type FromBareWorker, nowMs } from './protocol';

function tell(message: FromBareWorker): void {
  process.send?.(message);
}

const activities: BareActivities = {
  async first() {},
  async second() {},
  async third(mark) {
    tell({ type: 'done', mark, atMs: nowMs() });
  },
};

async function main(environment: Record<string, string | undefined>): Promise<void> {
  const { BENCH_TEMPORAL_ADDRESS = '', BENCH_TASK_QUEUE = '', BENCH_TUNED } = environment;
  Runtime.install({ logger: new DefaultLogger('WARN'), shutdownSignals: [] });
  const connection = await NativeConnection.connect({ address: BENCH_TEMPORAL_ADDRESS, ...(BENCH_TUNED ? compression : {}) });
  const worker = await Worker.create({
    connection,
    taskQueue: BENCH_TASK_QUEUE,
    workflowsPath: join(__dirname, 'bare-workflow.ts'),
    activities,
    ...stickyTimeout,
    ...(BENCH_TUNED ? polls : {}),
  });
  const running = worker.run();
  tell({ type: 'ready' });
  await Promise.race([running, once(process, 'SIGTERM'), once(process, 'disconnect')]);
  worker.shutdown();
  await running;
  await connection.close();
  process.exit(0);
}

// biome-ignore lint/style/noProcessEnv: the entry of a process of the benchmark; its values are no settings of the product
main(process.env).catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
});
