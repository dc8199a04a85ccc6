/** Stops what the setup started. */
import { stopEngine } from './servers';

export default async function globalTeardown(): Promise<void> {
  await stopEngine();
}
