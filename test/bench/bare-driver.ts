/** Calls `signalWithStart` for the bare workflow once per message, with the same options as Parley uses for a conversation. */
import { once } from 'node:events';
import { Client, Connection } from '@temporalio/client';
import { defineSearchAttributeKey } from '@temporalio/common';
import { messagesReceived, searchAttributes } from '../../workflows/contract';
import { type BareOrder, type FromBareDriver, nowMs } from './protocol';

/** As in Parley's call. */
const WORKFLOW_TASK_TIMEOUT_MS = 5_000;

const typedSearchAttributes = [
  { key: defineSearchAttributeKey(searchAttributes.workspace, 'KEYWORD'), value: 'bench' },
  { key: defineSearchAttributeKey(searchAttributes.mode, 'KEYWORD'), value: 'ai' },
  { key: defineSearchAttributeKey(searchAttributes.attention, 'BOOL'), value: false },
];

function sendToParent(message: FromBareDriver): void {
  process.send?.(message);
}

async function signal(client: Client, taskQueue: string, { mark, workflowId, received }: BareOrder): Promise<void> {
  const startedAtMs = nowMs();
  try {
    await client.workflow.signalWithStart('bareConversation', {
      workflowId,
      taskQueue,
      args: [],
      signal: messagesReceived,
      signalArgs: [received],
      workflowTaskTimeout: WORKFLOW_TASK_TIMEOUT_MS,
      staticSummary: 'bare conversation',
      typedSearchAttributes,
    });
    sendToParent({ type: 'acknowledged', mark, startedAtMs, endedAtMs: nowMs() });
  } catch (error) {
    sendToParent({ type: 'refused', mark, reason: error instanceof Error ? error.message : String(error) });
  }
}

async function main(environment: Record<string, string | undefined>): Promise<void> {
  const { BENCH_TEMPORAL_ADDRESS = '', BENCH_TASK_QUEUE = '' } = environment;
  const connection = await Connection.connect({ address: BENCH_TEMPORAL_ADDRESS });
  const client = new Client({ connection });
  process.on('message', (order: BareOrder) => {
    void signal(client, BENCH_TASK_QUEUE, order);
  });
  sendToParent({ type: 'ready' });
  await Promise.race([once(process, 'SIGTERM'), once(process, 'disconnect')]);
  await connection.close();
  process.exit(0);
}

// biome-ignore lint/style/noProcessEnv: an entry point of the benchmark; the variables are not Parley's settings
main(process.env).catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
});
