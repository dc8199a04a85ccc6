/** The whole system on the shared servers, with its own database, which `close` drops. */
import { testDatabase, testTemporal } from './engine';
import { type System, type SystemOptions, startSystem } from './system';

/** Starts the system on a new database whose name begins with `name` (a-z, 0-9, _). */
export async function startSuite(name: string, options: Omit<SystemOptions, 'databaseUrl' | 'temporalAddress'> = {}): Promise<System> {
  const database = await testDatabase(name);
  const system = await startSystem({ ...options, databaseUrl: database.url, temporalAddress: testTemporal().address });
  return {
    ...system,
    async close() {
      await system.close();
      await database.drop();
    },
  };
}
