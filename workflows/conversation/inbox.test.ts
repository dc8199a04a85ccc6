import type { InboundMessage, MessagesReceived } from '../contract';
import { Inbox, SEEN_LIMIT } from './inbox';

const message = (providerMessageId: string): InboundMessage => ({
  id: '01234567-89ab-8def-a123-456789abcdef',
  providerMessageId,
  kind: 'text',
  text: 'x',
  sentAtMs: 1,
});
const delivery = (...ids: string[]): MessagesReceived => ({ contact: { phone: '1' }, messages: ids.map(message) });

const messagesOf = (deliveries: MessagesReceived[]) => deliveries.flatMap(({ messages }) => messages);

describe('inbox', () => {
  test('when the same message comes again, alone or in a batch, then it is taken once', () => {
    const inbox = new Inbox();
    expect(inbox.add(delivery('a'))).toBe(1);
    expect(inbox.add(delivery('a'))).toBe(0);
    expect(inbox.add(delivery('a', 'b', 'b'))).toBe(1);
    expect(messagesOf(inbox.takeAll()).map(({ providerMessageId }) => providerMessageId)).toEqual(['a', 'b']);
    expect(inbox.duplicatesDropped).toBe(3);
  });

  test('when a message was taken out already, then it is still known', () => {
    const inbox = new Inbox();
    inbox.add(delivery('a'));
    inbox.takeAll();
    expect(inbox.add(delivery('a'))).toBe(0);
    expect(inbox.isEmpty).toBe(true);
  });

  test('when more ids were seen than are remembered, then the oldest is forgotten and the newest is not', () => {
    const inbox = new Inbox();
    for (let index = 0; index <= SEEN_LIMIT; index += 1) inbox.add(delivery(`m${index}`));
    expect(inbox.snapshot().seenIds).toHaveLength(SEEN_LIMIT);
    expect(inbox.add(delivery(`m${SEEN_LIMIT}`))).toBe(0);
    expect(inbox.add(delivery('m0'))).toBe(1);
  });

  test('when it is restored from a snapshot, then it holds what waited and knows what was seen', () => {
    const inbox = new Inbox();
    inbox.add(delivery('a'));
    inbox.takeAll();
    inbox.add(delivery('b'));
    const { pending, seenIds } = JSON.parse(JSON.stringify(inbox.snapshot()));
    const restored = new Inbox(pending, seenIds);
    expect(restored.add(delivery('a', 'b'))).toBe(0);
    expect(messagesOf(restored.takeAll()).map(({ providerMessageId }) => providerMessageId)).toEqual(['b']);
  });

  test('when something is put back, then it comes first again, and the newest can be looked at', () => {
    const inbox = new Inbox();
    inbox.add(delivery('a'));
    const taken = inbox.takeAll();
    inbox.add(delivery('b'));
    inbox.putBack(taken);
    expect(messagesOf(inbox.newest(1)).map(({ providerMessageId }) => providerMessageId)).toEqual(['b']);
    expect(inbox.size).toBe(2);
    expect(messagesOf(inbox.takeAll()).map(({ providerMessageId }) => providerMessageId)).toEqual(['a', 'b']);
  });

  test('when deliveries know different things of a contact, then each keeps what it knows', () => {
    const inbox = new Inbox();
    inbox.add({ contact: { phone: '1', name: 'old' }, messages: [message('a')] });
    inbox.add({ contact: { businessScopedUserId: 'u' }, messages: [message('b')] });
    expect(inbox.takeAll().map(({ contact }) => contact)).toEqual([{ phone: '1', name: 'old' }, { businessScopedUserId: 'u' }]);
  });

  test('when the newest are looked at, then their deliveries are cut to the count, and the count may span several', () => {
    const inbox = new Inbox();
    inbox.add(delivery('a', 'b'));
    inbox.add(delivery('c', 'd'));
    expect(inbox.newest(3)).toEqual([delivery('b'), delivery('c', 'd')]);
  });

  test('when a message became a dead letter, then it may come again, and the others of its delivery may not', () => {
    const inbox = new Inbox();
    const [refused, kept] = [
      { ...message('a'), id: '00000000-0000-8000-a000-00000000000a' },
      { ...message('b'), id: '00000000-0000-8000-a000-00000000000b' },
    ];
    const received = { contact: { phone: '1' }, messages: [refused, kept] };
    inbox.add(received);
    inbox.forget(inbox.takeAll(), [refused.id]);
    expect(inbox.add(received)).toBe(1);
    expect(messagesOf(inbox.takeAll())).toEqual([refused]);
  });

  const readable = message('ok');
  test.each([
    ['nothing', undefined],
    ['null', null],
    ['a text', 'hello'],
    ['a number', 7],
    ['a list', []],
    ['an empty object', {}],
    ['no contact', { messages: [readable] }],
    ['a contact without identity', { contact: {}, messages: [readable] }],
    ['messages that are no list', { contact: { phone: '1' }, messages: 'x' }],
    [
      'messages of all wrong kinds',
      { contact: { phone: '1' }, messages: [null, 1, 'x', {}, { ...readable, id: 'no uuid' }, { ...readable, text: 5 }] },
    ],
    ['a contact whose number is a number', { contact: { phone: 4915, businessScopedUserId: 'u' }, messages: [readable] }],
    ['a message whose time is in nanoseconds', { contact: { phone: '1' }, messages: [{ ...readable, sentAtMs: 1.7e18 }] }],
    ['a message whose payload is a text', { contact: { phone: '1' }, messages: [{ ...readable, payload: 'x' }] }],
    ['a message without a time', { contact: { phone: '1' }, messages: [{ ...readable, sentAtMs: undefined }] }],
  ])('when a signal carries %s, then nothing is taken and nothing is thrown', (_what, received) => {
    const inbox = new Inbox();
    expect(inbox.add(received)).toBe(0);
    expect(inbox.isEmpty).toBe(true);
  });

  test('when one message of a signal is readable, then it is taken without the others', () => {
    const inbox = new Inbox();
    expect(inbox.add({ contact: { phone: '1' }, messages: [null, readable] })).toBe(1);
  });
});
