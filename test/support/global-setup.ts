/** Starts one Temporal server and one PostgreSQL for the whole run, on free ports, and leaves their addresses in the environment. */
import { startEngine } from './servers';

export default async function globalSetup(): Promise<void> {
  await startEngine();
}
