import type { InboundMessage, MessagesReceived } from '../contract';
import { Inbox, SEEN_LIMIT } from './inbox';

const message = (providerMessageId: string): InboundMessage => ({
  id: `id-${providerMessageId}`,
  providerMessageId,
  kind: 'text',
  text: 'x',
  sentAtMs: 1,
});
const delivery = (...ids: string[]): MessagesReceived => ({ contact: { phone: '1' }, messages: ids.map(message) });

describe('inbox', () => {
  test('when the same message comes again, alone or in a batch, then it is taken once', () => {
    const inbox = new Inbox();
    expect(inbox.add(delivery('a'))).toBe(1);
    expect(inbox.add(delivery('a'))).toBe(0);
    expect(inbox.add(delivery('a', 'b', 'b'))).toBe(1);
    expect(inbox.takeAll().messages.map(({ providerMessageId }) => providerMessageId)).toEqual(['a', 'b']);
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
    expect(restored.takeAll().messages.map(({ providerMessageId }) => providerMessageId)).toEqual(['b']);
  });

  test('when something is put back, then it comes first again, and the newest can be looked at', () => {
    const inbox = new Inbox();
    inbox.add(delivery('a'));
    const taken = inbox.takeAll();
    inbox.add(delivery('b'));
    inbox.putBack(taken);
    expect(inbox.newest(1).messages.map(({ providerMessageId }) => providerMessageId)).toEqual(['b']);
    expect(inbox.size).toBe(2);
    expect(inbox.takeAll().messages.map(({ providerMessageId }) => providerMessageId)).toEqual(['a', 'b']);
  });

  test('when deliveries know different things of a contact, then the newest knowledge wins', () => {
    const inbox = new Inbox();
    inbox.add({ contact: { phone: '1', name: 'old' }, messages: [message('a')] });
    inbox.add({ contact: { phone: '1', name: 'new', username: '@n' }, messages: [message('b')] });
    expect(inbox.takeAll().contact).toEqual({ phone: '1', name: 'new', username: '@n' });
  });
});
