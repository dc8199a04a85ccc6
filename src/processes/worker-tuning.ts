/** What the worker asks of the SDK otherwise than the SDK's own defaults, and why. The benchmark's bare worker can have the same. */
import type { NativeConnectionOptions, WorkerOptions } from '@temporalio/worker';

/**
 * How long the tasks of a dead worker's sticky queue wait before any worker may take them. Half of the bound
 * that a customer waits after a kill; longer saves replays when a live worker is busy.
 */
export const stickyTimeout = { stickyQueueScheduleToStartTimeout: 2_500 } as const satisfies Partial<WorkerOptions>;

/**
 * A workflow task that comes while no poll waits for it is written to Temporal's database and read again. So there are more polls than
 * the SDK's 10, of which 8 are for conversations that the worker keeps in memory. Autoscaling polls were not enough either.
 * The SDK's `maxConcurrentWorkflowTaskPolls` is not it: version 1.24 declares it and reads it nowhere.
 */
export const polls = {
  workflowTaskPollerBehavior: { type: 'simple-maximum', maximum: 20 },
} as const satisfies Partial<WorkerOptions>;

/**
 * Nearly all requests and answers are a few kB, and the SDK's gzip cost more CPU on both ends than their bytes do, on one machine.
 * Long histories, which a worker reads after a restart, travel uncompressed as well.
 */
export const compression = { grpcCompression: { codec: 'none' } } as const satisfies Partial<NativeConnectionOptions>;

/**
 * Steps wait for databases and vendors, they do not compute: hundreds of slow sends must leave room for the next customer. A local
 * activity holds a workflow task as long as it runs, so there are as many of these.
 */
export const slots = {
  maxConcurrentWorkflowTaskExecutions: 500,
  maxConcurrentLocalActivityExecutions: 500,
  maxConcurrentActivityTaskExecutions: 500,
} as const satisfies Partial<WorkerOptions>;
