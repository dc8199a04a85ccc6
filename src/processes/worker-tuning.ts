/** The worker options that differ from the SDK's defaults, and why. The benchmark's bare worker can use them too. */
import type { NativeConnectionOptions, WorkerOptions } from '@temporalio/worker';

/**
 * How long a task waits in a dead worker's sticky queue before any worker may take it: half of the longest acceptable wait for a
 * customer after a crash. A longer timeout would save replays while a live worker is busy.
 */
export const stickyTimeout = { stickyQueueScheduleToStartTimeout: 2_500 } as const satisfies Partial<WorkerOptions>;

/**
 * A workflow task that arrives while no poller is waiting is written to Temporal's database and read back. Hence more pollers than
 * the SDK's default of 10, of which 8 serve workflows in the worker's cache. Autoscaling pollers were not enough either.
 * `maxConcurrentWorkflowTaskPolls` has no effect: SDK 1.24 declares it but never reads it.
 */
export const polls = {
  workflowTaskPollerBehavior: { type: 'simple-maximum', maximum: 20 },
} as const satisfies Partial<WorkerOptions>;

/**
 * No gzip: nearly all requests and responses are a few kB, and on one machine compressing them cost more CPU on both ends than
 * sending them uncompressed. Long histories, which a worker reads after a restart, are sent uncompressed as well.
 */
export const compression = { grpcCompression: { codec: 'none' } } as const satisfies Partial<NativeConnectionOptions>;

/**
 * Activities mostly wait for the database and for vendors, so hundreds of slow sends must not block other customers. A local activity
 * occupies a workflow task slot while it runs, so there are equally many of those.
 */
export const slots = {
  maxConcurrentWorkflowTaskExecutions: 500,
  maxConcurrentLocalActivityExecutions: 500,
  maxConcurrentActivityTaskExecutions: 500,
} as const satisfies Partial<WorkerOptions>;
