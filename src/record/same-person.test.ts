import { type KnownContact, type NamedAliases, resolveSender } from './same-person';

const T = 1_000_000;

/** A contact as it becomes known: its number and its ids, each with when it was said. */
function contact(id: string, facts: { phone?: [string, number | null]; ids?: [string, number | null][] } = {}): KnownContact {
  const { phone, ids = [] } = facts;
  return {
    ...{ id, hasConversation: true, phone: phone?.[0] ?? null, phoneKey: phone?.[0] ?? null, userId: ids.at(-1)?.[0] ?? null },
    aliases: [
      ...(phone ? [{ kind: 'phone' as const, value: phone[0], statedAtMs: phone[1] }] : []),
      ...ids.map(([value, statedAtMs]) => ({ kind: 'user_id' as const, value, statedAtMs })),
    ],
  };
}

function resolve(named: Partial<NamedAliases>, ...known: KnownContact[]) {
  const { contacts, hasPhone, formerOwners } = resolveSender({ statedAtMs: T, ...named }, known);
  return { contacts: contacts.map(({ id }) => id), hasPhone, formerOwners: formerOwners.map(({ id }) => id) };
}

describe('who is the person', () => {
  test('when nobody is known, then it is somebody new, with the number', () => {
    expect(resolve({ phoneKey: 'P', userId: 'U' })).toEqual({ contacts: [], hasPhone: true, formerOwners: [] });
    expect(resolve({ userId: 'U' })).toEqual({ contacts: [], hasPhone: false, formerOwners: [] });
  });

  test('when a contact of the number alone and one of the id alone are named together, then they are one, and the number’s stays', () => {
    const [number, id] = [contact('n', { phone: ['P', 1] }), contact('i', { ids: [['U', 2]] })];
    expect(resolve({ phoneKey: 'P', userId: 'U' }, number, id)).toMatchObject({ contacts: ['n', 'i'], hasPhone: true, formerOwners: [] });
    expect(resolve({ phoneKey: 'P', userId: 'U' }, id, number)).toMatchObject({ contacts: ['n', 'i'] });
  });

  test('when a known number comes with its first id, or a known id with its first number, then it is that contact', () => {
    expect(resolve({ phoneKey: 'P', userId: 'U' }, contact('n', { phone: ['P', 1] }))).toMatchObject({ contacts: ['n'], hasPhone: true });
    expect(resolve({ phoneKey: 'P', userId: 'U' }, contact('i', { ids: [['U', 1]] }))).toMatchObject({ contacts: ['i'], hasPhone: true });
  });

  test('when a known id comes with a new number, then it is that contact', () => {
    const known = contact('a', { phone: ['Q', 1], ids: [['U', 1]] });
    expect(resolve({ phoneKey: 'P', userId: 'U' }, known)).toEqual({ contacts: ['a'], hasPhone: true, formerOwners: [] });
  });
});

describe('a number that changes hands', () => {
  const first = contact('first', { phone: ['P', 1], ids: [['U1', 1]] });

  test('when a known number comes with an id that nobody has, then it is somebody new, and the first loses the number', () => {
    expect(resolve({ phoneKey: 'P', userId: 'U2' }, first)).toEqual({ contacts: [], hasPhone: true, formerOwners: ['first'] });
  });

  test('when it comes with the id of another contact, then it is that one, and the first loses the number', () => {
    const second = contact('second', { phone: ['Q', 1], ids: [['U2', 1]] });
    expect(resolve({ phoneKey: 'P', userId: 'U2' }, first, second)).toEqual({
      contacts: ['second'],
      hasPhone: true,
      formerOwners: ['first'],
    });
  });

  test('when it comes alone, then it is whoever has it now', () => {
    expect(resolve({ phoneKey: 'P' }, contact('second', { phone: ['P', 2], ids: [['U2', 2]] }))).toMatchObject({ contacts: ['second'] });
  });

  test('when a message of the first owner comes late, or once more, then the number stays where it is', () => {
    const [before, now] = [contact('first', { ids: [['U1', 1]] }), contact('second', { phone: ['P', 500], ids: [['U2', 500]] })];
    const late = { phoneKey: 'P', userId: 'U1', statedAtMs: 400 };
    expect(resolve(late, before, now)).toEqual({ contacts: ['first'], hasPhone: false, formerOwners: [] });
    expect(resolve({ ...late, statedAtMs: 500 }, before, now)).toEqual({ contacts: ['first'], hasPhone: true, formerOwners: ['second'] });
  });

  test('when a message from a person’s former number comes late, then the newer number stays', () => {
    const moved = contact('a', { phone: ['P', 500], ids: [['U', 500]] });
    expect(resolve({ phoneKey: 'Q', userId: 'U', statedAtMs: 400 }, moved)).toEqual({ contacts: ['a'], hasPhone: false, formerOwners: [] });
  });
});

describe('a change that WhatsApp announces', () => {
  test('when a number replaces another one, then the contact of the former number takes it', () => {
    const known = contact('a', { phone: ['P', 1], ids: [['U', 1]] });
    expect(resolve({ phoneKey: 'Q', formerPhoneKey: 'P' }, known)).toEqual({ contacts: ['a'], hasPhone: true, formerOwners: [] });
  });

  test('when the person wrote from the new number before, then both are one', () => {
    const [former, now] = [contact('f', { phone: ['P', 1], ids: [['U', 1]] }), contact('n', { phone: ['Q', 2] })];
    expect(resolve({ phoneKey: 'Q', formerPhoneKey: 'P' }, former, now)).toEqual({
      contacts: ['n', 'f'],
      hasPhone: true,
      formerOwners: [],
    });
  });

  test('when somebody else with an id of their own had the new number, then that contact loses it', () => {
    const [former, other] = [contact('f', { phone: ['P', 1], ids: [['U', 1]] }), contact('o', { phone: ['Q', 1], ids: [['V', 1]] })];
    expect(resolve({ phoneKey: 'Q', formerPhoneKey: 'P' }, former, other)).toEqual({
      contacts: ['f'],
      hasPhone: true,
      formerOwners: ['o'],
    });
  });

  test('when the new number comes with a new id, then it is the same person: the id has changed with the number', () => {
    const changed = contact('a', { phone: ['Q', 500], ids: [['U', 1]] });
    expect(resolve({ phoneKey: 'Q', userId: 'U2' }, changed)).toEqual({ contacts: ['a'], hasPhone: true, formerOwners: [] });
    const named = contact('a', { phone: ['Q', 500], ids: [['U', 500]] });
    expect(resolve({ phoneKey: 'Q', userId: 'U2' }, named)).toEqual({ contacts: [], hasPhone: true, formerOwners: ['a'] });
  });

  test('when an id replaces another one, then the contacts of both are one, each with an id or not', () => {
    const [former, now] = [contact('f', { phone: ['P', 1], ids: [['U', 1]] }), contact('n', { ids: [['U2', 2]] })];
    expect(resolve({ userId: 'U2', formerUserId: 'U' }, former)).toMatchObject({ contacts: ['f'] });
    expect(resolve({ userId: 'U2', formerUserId: 'U' }, former, now)).toMatchObject({ contacts: ['n', 'f'] });
  });
});

describe('contacts from before there were aliases', () => {
  test('when two of them show the same number, then they are one, unless each has an id of its own', () => {
    const claimed = contact('a', { phone: ['P', null] });
    const shown = { ...contact('b'), phone: 'P', phoneKey: 'P' };
    expect(resolve({ phoneKey: 'P' }, claimed, shown)).toEqual({ contacts: ['a', 'b'], hasPhone: true, formerOwners: [] });
    const [one, other] = [
      { ...claimed, userId: 'U' },
      { ...shown, userId: 'V' },
    ];
    expect(resolve({ phoneKey: 'P' }, one, other)).toEqual({ contacts: ['a'], hasPhone: true, formerOwners: ['b'] });
  });

  test('when two of them show the same id, then they are one', () => {
    const [claimed, shown] = [contact('a', { phone: ['P', 1], ids: [['U', null]] }), { ...contact('b'), userId: 'U' }];
    expect(resolve({ userId: 'U' }, claimed, shown)).toMatchObject({ contacts: ['a', 'b'] });
  });

  test('when a contact has no conversation, then it is not the one that stays', () => {
    const [empty, other] = [{ ...contact('n', { phone: ['P', 1] }), hasConversation: false }, contact('i', { ids: [['U', 2]] })];
    expect(resolve({ phoneKey: 'P', userId: 'U' }, empty, other)).toMatchObject({ contacts: ['i', 'n'] });
  });
});
