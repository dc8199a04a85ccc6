/** Starts one Temporal server and one PostgreSQL server for the whole run, and passes their addresses on in the environment. */
import { startEngine } from './servers';

export default async function globalSetup(): Promise<void> {
  await startEngine();
}
