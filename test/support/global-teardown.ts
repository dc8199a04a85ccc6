/** Stops the servers of the run. */
import { stopEngine } from './servers';

export default async function globalTeardown(): Promise<void> {
  await stopEngine();
}
