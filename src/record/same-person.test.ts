import { type Claim, judge, type KnownContact } from './same-person';

const T = 1_000_000;

/** A contact as it becomes known: its number and its ids, each with when it was said. */
function contact(id: string, facts: { phone?: [string, number | null]; ids?: [string, number | null][] } = {}): KnownContact {
  const { phone, ids = [] } = facts;
  return {
    ...{ id, hasConversation: true, phone: phone?.[0] ?? null, phoneKey: phone?.[0] ?? null, userId: ids.at(-1)?.[0] ?? null },
    aliases: [
      ...(phone ? [{ kind: 'phone' as const, value: phone[0], saidAtMs: phone[1] }] : []),
      ...ids.map(([value, saidAtMs]) => ({ kind: 'user_id' as const, value, saidAtMs })),
    ],
  };
}

function verdict(claim: Partial<Claim>, ...contacts: KnownContact[]) {
  const { person, takesPhone, losePhone } = judge({ saidAtMs: T, ...claim }, contacts);
  return { person: person.map(({ id }) => id), takesPhone, losePhone: losePhone.map(({ id }) => id) };
}

describe('who is the person', () => {
  test('when nobody is known, then it is somebody new, with the number', () => {
    expect(verdict({ phoneKey: 'P', userId: 'U' })).toEqual({ person: [], takesPhone: true, losePhone: [] });
    expect(verdict({ userId: 'U' })).toEqual({ person: [], takesPhone: false, losePhone: [] });
  });

  test('when a contact of the number alone and one of the id alone are named together, then they are one, and the number’s stays', () => {
    const [number, id] = [contact('n', { phone: ['P', 1] }), contact('i', { ids: [['U', 2]] })];
    expect(verdict({ phoneKey: 'P', userId: 'U' }, number, id)).toMatchObject({ person: ['n', 'i'], takesPhone: true, losePhone: [] });
    expect(verdict({ phoneKey: 'P', userId: 'U' }, id, number)).toMatchObject({ person: ['n', 'i'] });
  });

  test('when a known number comes with its first id, or a known id with its first number, then it is that contact', () => {
    expect(verdict({ phoneKey: 'P', userId: 'U' }, contact('n', { phone: ['P', 1] }))).toMatchObject({ person: ['n'], takesPhone: true });
    expect(verdict({ phoneKey: 'P', userId: 'U' }, contact('i', { ids: [['U', 1]] }))).toMatchObject({ person: ['i'], takesPhone: true });
  });

  test('when a known id comes with a new number, then it is that contact', () => {
    const known = contact('a', { phone: ['Q', 1], ids: [['U', 1]] });
    expect(verdict({ phoneKey: 'P', userId: 'U' }, known)).toEqual({ person: ['a'], takesPhone: true, losePhone: [] });
  });
});

describe('a number that changes hands', () => {
  const first = contact('first', { phone: ['P', 1], ids: [['U1', 1]] });

  test('when a known number comes with an id that nobody has, then it is somebody new, and the first loses the number', () => {
    expect(verdict({ phoneKey: 'P', userId: 'U2' }, first)).toEqual({ person: [], takesPhone: true, losePhone: ['first'] });
  });

  test('when it comes with the id of another contact, then it is that one, and the first loses the number', () => {
    const second = contact('second', { phone: ['Q', 1], ids: [['U2', 1]] });
    expect(verdict({ phoneKey: 'P', userId: 'U2' }, first, second)).toEqual({ person: ['second'], takesPhone: true, losePhone: ['first'] });
  });

  test('when it comes alone, then it is whoever has it now', () => {
    expect(verdict({ phoneKey: 'P' }, contact('second', { phone: ['P', 2], ids: [['U2', 2]] }))).toMatchObject({ person: ['second'] });
  });

  test('when a message of the first owner comes late, or once more, then the number stays where it is', () => {
    const [before, now] = [contact('first', { ids: [['U1', 1]] }), contact('second', { phone: ['P', 500], ids: [['U2', 500]] })];
    const late = { phoneKey: 'P', userId: 'U1', saidAtMs: 400 };
    expect(verdict(late, before, now)).toEqual({ person: ['first'], takesPhone: false, losePhone: [] });
    expect(verdict({ ...late, saidAtMs: 500 }, before, now)).toEqual({ person: ['first'], takesPhone: true, losePhone: ['second'] });
  });

  test('when a message from a person’s former number comes late, then the newer number stays', () => {
    const moved = contact('a', { phone: ['P', 500], ids: [['U', 500]] });
    expect(verdict({ phoneKey: 'Q', userId: 'U', saidAtMs: 400 }, moved)).toEqual({ person: ['a'], takesPhone: false, losePhone: [] });
  });
});

describe('a change that WhatsApp announces', () => {
  test('when a number replaces another one, then the contact of the former number takes it', () => {
    const known = contact('a', { phone: ['P', 1], ids: [['U', 1]] });
    expect(verdict({ phoneKey: 'Q', formerPhoneKey: 'P' }, known)).toEqual({ person: ['a'], takesPhone: true, losePhone: [] });
  });

  test('when the person wrote from the new number before, then both are one', () => {
    const [former, now] = [contact('f', { phone: ['P', 1], ids: [['U', 1]] }), contact('n', { phone: ['Q', 2] })];
    expect(verdict({ phoneKey: 'Q', formerPhoneKey: 'P' }, former, now)).toEqual({ person: ['n', 'f'], takesPhone: true, losePhone: [] });
  });

  test('when somebody else with an id of their own had the new number, then that contact loses it', () => {
    const [former, other] = [contact('f', { phone: ['P', 1], ids: [['U', 1]] }), contact('o', { phone: ['Q', 1], ids: [['V', 1]] })];
    expect(verdict({ phoneKey: 'Q', formerPhoneKey: 'P' }, former, other)).toEqual({ person: ['f'], takesPhone: true, losePhone: ['o'] });
  });

  test('when the new number comes with a new id, then it is the same person: the id has changed with the number', () => {
    const changed = contact('a', { phone: ['Q', 500], ids: [['U', 1]] });
    expect(verdict({ phoneKey: 'Q', userId: 'U2' }, changed)).toEqual({ person: ['a'], takesPhone: true, losePhone: [] });
    const named = contact('a', { phone: ['Q', 500], ids: [['U', 500]] });
    expect(verdict({ phoneKey: 'Q', userId: 'U2' }, named)).toEqual({ person: [], takesPhone: true, losePhone: ['a'] });
  });

  test('when an id replaces another one, then the contacts of both are one, each with an id or not', () => {
    const [former, now] = [contact('f', { phone: ['P', 1], ids: [['U', 1]] }), contact('n', { ids: [['U2', 2]] })];
    expect(verdict({ userId: 'U2', formerUserId: 'U' }, former)).toMatchObject({ person: ['f'] });
    expect(verdict({ userId: 'U2', formerUserId: 'U' }, former, now)).toMatchObject({ person: ['n', 'f'] });
  });
});

describe('contacts from before there were aliases', () => {
  test('when two of them show the same number, then they are one, unless each has an id of its own', () => {
    const claimed = contact('a', { phone: ['P', null] });
    const shown = { ...contact('b'), phone: 'P', phoneKey: 'P' };
    expect(verdict({ phoneKey: 'P' }, claimed, shown)).toEqual({ person: ['a', 'b'], takesPhone: true, losePhone: [] });
    const [one, other] = [
      { ...claimed, userId: 'U' },
      { ...shown, userId: 'V' },
    ];
    expect(verdict({ phoneKey: 'P' }, one, other)).toEqual({ person: ['a'], takesPhone: true, losePhone: ['b'] });
  });

  test('when two of them show the same id, then they are one', () => {
    const [claimed, shown] = [contact('a', { phone: ['P', 1], ids: [['U', null]] }), { ...contact('b'), userId: 'U' }];
    expect(verdict({ userId: 'U' }, claimed, shown)).toMatchObject({ person: ['a', 'b'] });
  });

  test('when a contact has no conversation, then it is not the one that stays', () => {
    const [empty, other] = [{ ...contact('n', { phone: ['P', 1] }), hasConversation: false }, contact('i', { ids: [['U', 2]] })];
    expect(verdict({ phoneKey: 'P', userId: 'U' }, empty, other)).toMatchObject({ person: ['i', 'n'] });
  });
});
