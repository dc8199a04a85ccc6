/** The worker of the bare workflow, with the options of the product's worker and none of its code. */
import { once } from 'node:events';
import { join } from 'node:path';
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import type { BareActivities } from './bare-workflow';
import { type FromBareWorker, nowMs } from './protocol';

/** As the product's worker has it. */
const STICKY_TIMEOUT_MS = 2_500;

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
  const { BENCH_TEMPORAL_ADDRESS = '', BENCH_TASK_QUEUE = '' } = environment;
  Runtime.install({ logger: new DefaultLogger('WARN'), shutdownSignals: [] });
  const connection = await NativeConnection.connect({ address: BENCH_TEMPORAL_ADDRESS });
  const worker = await Worker.create({
    connection,
    taskQueue: BENCH_TASK_QUEUE,
    workflowsPath: join(__dirname, 'bare-workflow.ts'),
    activities,
    stickyQueueScheduleToStartTimeout: STICKY_TIMEOUT_MS,
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
