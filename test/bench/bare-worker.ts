/**
 * The worker of the bare workflow. Uses the SDK's default pollers and compression, or Parley's if `BENCH_TUNED` is set. The sticky
 * queue timeout is always Parley's.
 */
import { once } from 'node:events';
import { join } from 'node:path';
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { compression, polls, stickyTimeout } from '../../src/processes/worker-tuning';
import type { BareActivities } from './bare-workflow';
import { type FromBareWorker, nowMs } from './protocol';

function sendToParent(message: FromBareWorker): void {
  process.send?.(message);
}

const activities: BareActivities = {
  async first() {},
  async second() {},
  async third(mark) {
    sendToParent({ type: 'done', mark, atMs: nowMs() });
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
  sendToParent({ type: 'ready' });
  await Promise.race([running, once(process, 'SIGTERM'), once(process, 'disconnect')]);
  worker.shutdown();
  await running;
  await connection.close();
  process.exit(0);
}

// biome-ignore lint/style/noProcessEnv: an entry point of the benchmark; the variables are not Parley's settings
main(process.env).catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
});
