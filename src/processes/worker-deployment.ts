/** The deployment version that a worker announces to Temporal (docs/decisions/0010). */
import type { WorkerDeploymentOptions } from '@temporalio/worker';
import { version } from '../../package.json';
import type { Settings } from '../platform/config';

type DeploymentSettings = Pick<Settings, 'WORKER_VERSIONING' | 'WORKER_DEPLOYMENT_NAME' | 'WORKER_BUILD_ID'>;

/**
 * Without versioning the version is only written into the histories, and every worker of the queue takes every task. No workflow may name a
 * versioning behavior of its own: Temporal refuses each task of such a workflow from a worker without versioning.
 */
export function deploymentOptions(settings: DeploymentSettings, bundleHash: string): WorkerDeploymentOptions {
  const deploymentVersion = {
    deploymentName: settings.WORKER_DEPLOYMENT_NAME,
    buildId: settings.WORKER_BUILD_ID ?? `${version}-${bundleHash}`,
  };
  return settings.WORKER_VERSIONING
    ? { version: deploymentVersion, useWorkerVersioning: true, defaultVersioningBehavior: 'PINNED' }
    : { version: deploymentVersion, useWorkerVersioning: false };
}
