import { createIdentity } from './identity';

const identity = createIdentity('key');

describe('identity', () => {
  test('when a person writes again, then the key is the same, whatever else is known of them', () => {
    const key = identity.contactKey('100', { phone: '6281110000001' });
    expect(identity.contactKey('100', { phone: '6281110000001', businessScopedUserId: 'ID.1', name: 'Budi' })).toBe(key);
    expect(key).toMatch(/^[0-9a-f]{24}$/);
  });

  test('when person, number or installation differ, then the keys differ', () => {
    const keys = [
      identity.contactKey('100', { phone: '1' }),
      identity.contactKey('100', { phone: '2' }),
      identity.contactKey('101', { phone: '1' }),
      identity.contactKey('100', { businessScopedUserId: '1' }),
      createIdentity('other').contactKey('100', { phone: '1' }),
    ];
    expect(new Set(keys).size).toBe(keys.length);
  });

  test('when a message comes twice, then its id is the same UUID', () => {
    const id = identity.messageId('100', 'wamid.A');
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(identity.messageId('100', 'wamid.A')).toBe(id);
    expect(identity.messageId('100', 'wamid.B')).not.toBe(id);
  });

  test('when caller, key or origin of a call differ, then it is another call', () => {
    const ids = [
      identity.callId({ caller: 'a', idempotencyKey: '1' }),
      identity.callId({ caller: 'b', idempotencyKey: '1' }),
      identity.callId({ caller: 'a', idempotencyKey: '2' }),
      identity.callId({ caller: 'a1', idempotencyKey: '' }),
      identity.callId({ providerCallId: '1' }),
    ];
    expect(new Set(ids).size).toBe(ids.length);
    expect(identity.callId({ caller: 'a', idempotencyKey: '1' })).toBe(ids[0]);
  });
});
