import { ApplicationFailure } from '@temporalio/activity';
import { withDatabaseFailures } from './database-failures';

const failing = (error: unknown) => withDatabaseFailures({ act: async () => Promise.reject(error) }).act();
const sqlError = (code: string) => Object.assign(new Error('new row "secret" violates'), { code });

describe('errors of the database in activities', () => {
  test.each(['23514', '23505', '22P02', '42601'])(
    'when PostgreSQL refuses with %s, then the failure is final and quotes no row',
    async (code) => {
      await expect(failing(sqlError(code))).rejects.toMatchObject({ type: 'RecordError.Refused', nonRetryable: true });
      await expect(failing(sqlError(code))).rejects.not.toThrow(/secret/);
    },
  );

  test.each(['08006', '57P01', '53300', 'ECONNREFUSED'])('when the database is down (%s), then the failure is retryable', async (code) => {
    await expect(failing(sqlError(code))).rejects.toMatchObject({ type: 'RecordError.Unavailable', nonRetryable: false });
  });

  test('when an activity fails for another reason, then its error is unchanged', async () => {
    const failure = ApplicationFailure.create({ type: 'ModelError.Timeout', message: 'slow' });
    await expect(failing(failure)).rejects.toBe(failure);
    const bug = new TypeError('a bug');
    await expect(failing(bug)).rejects.toBe(bug);
  });

  test('when an activity succeeds, then its result comes through', async () => {
    expect(await withDatabaseFailures({ act: async (order: { x: number }) => order.x }).act({ x: 3 })).toBe(3);
  });
});
