/** The whole system on a database of its own, on the run's servers; `close` drops the database as well. */
import { testDatabase, testTemporal } from './engine';
import { type System, type SystemOptions, startSystem } from './system';

/** `name` begins the database's name (a-z, 0-9, _). */
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
