/** A worker inside the test process, with the real workflows, for tests that control the activities' timeouts or failures. */
import { randomBytes } from 'node:crypto';
import { Client, Connection } from '@temporalio/client';
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { workflowBundle } from '../../src/processes/workflow-bundle';
import { testTemporal } from './engine';

/** A running worker. */
export interface InProcessWorker {
  client: Client;
  taskQueue: string;
  close(): Promise<void>;
}

/** Runs `activities`, on a new task queue by default. Once per test file only, because Temporal's runtime can be installed only once. */
export async function startInProcessWorker(
  activities: object,
  taskQueue = `test-${randomBytes(5).toString('hex')}`,
): Promise<InProcessWorker> {
  Runtime.install({ logger: new DefaultLogger('ERROR'), shutdownSignals: [] });
  const { address, namespace } = testTemporal();
  const native = await NativeConnection.connect({ address });
  const connection = await Connection.connect({ address });
  const worker = await Worker.create({
    connection: native,
    namespace,
    taskQueue,
    workflowBundle: await workflowBundle(),
    activities,
  });
  const finished = worker.run();
  return {
    client: new Client({ connection, namespace }),
    taskQueue,
    async close() {
      worker.shutdown();
      await finished;
      await native.close();
      await connection.close();
    },
  };
}
