import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readKapsoBody } from './events';

const FIXTURES = join(__dirname, '../../../test/fixtures/kapso');
const fixture = (name: string) => readFileSync(join(FIXTURES, `${name}.json`));
const read = (body: unknown) => readKapsoBody(Buffer.from(JSON.stringify(body)));
const kinds = (name: string) => readKapsoBody(fixture(name)).map((event) => event.type);

describe('Kapso bodies', () => {
  const webhooks = readdirSync(FIXTURES).filter((file) => /^(webhook_|meta_raw_)/.test(file));

  test.each(webhooks)('when %s is read, then nothing in it is unreadable', (file) => {
    const events = readKapsoBody(readFileSync(join(FIXTURES, file)));
    expect(events.filter((event) => event.type === 'skipped' && event.reason === 'unreadable')).toEqual([]);
    const isInbound = /received|raw_message|batch_mixed/.test(file);
    expect(events.some((event) => event.type === 'message')).toBe(isInbound);
  });

  test('when a message came through Kapso or from Meta directly, then it is the same message of the same person', () => {
    const [fromKapso] = readKapsoBody(fixture('webhook_v2_received_text'));
    const [fromMeta] = readKapsoBody(fixture('meta_raw_message_text'));
    expect(fromKapso).toEqual({
      type: 'message',
      phoneNumberId: '100000000000001',
      contact: { phone: '6281110000001', name: 'Budi Contoh' },
      message: {
        providerMessageId: 'wamid.ZmFrZS1pbi10ZXh0LTE=',
        kind: 'text',
        text: 'Halo, pesanan saya sampai mana?',
        sentAtMs: 1795165200000,
      },
    });
    expect(fromMeta).toEqual(fromKapso);
  });

  test('when a batch comes, then each item is a message of the number that it names', () => {
    const events = readKapsoBody(fixture('webhook_v2_batch_received_3'));
    expect(events.map((event) => event.type === 'message' && event.message.text)).toEqual(['Halo', 'saya mau pesan', 'dua kotak']);
    expect(events.every((event) => event.type === 'message' && event.phoneNumberId === '100000000000001')).toBe(true);
  });

  test('when a Meta envelope mixes messages and statuses, then all are found', () => {
    expect(kinds('meta_raw_batch_mixed')).toEqual(['message', 'message', 'status']);
  });

  test('when the plain body comes, then it is a message without a number', () => {
    const events = read({ messages: [{ from: '+62 811-1000-0001', text: { body: 'hi' }, id: 'wamid.P', timestamp: '1795165200' }] });
    expect(events).toEqual([
      {
        type: 'message',
        contact: { phone: '6281110000001' },
        message: { providerMessageId: 'wamid.P', kind: 'text', text: 'hi', sentAtMs: 1795165200000 },
      },
    ]);
  });

  test('when a person shows no number, then the business-scoped id identifies them', () => {
    const [event] = readKapsoBody(fixture('webhook_v2_received_text_bsuid_only'));
    expect(event).toMatchObject({ contact: { businessScopedUserId: 'ID.10000000000000000001' } });
    expect(event).not.toHaveProperty('contact.phone');
  });

  test('when media come, then caption, ids and file are kept and the open addresses are not', () => {
    const [event] = readKapsoBody(fixture('webhook_v2_received_image_caption'));
    expect(event).toMatchObject({
      message: {
        kind: 'image',
        text: 'Foto barang rusak',
        payload: { image: { id: '300000000000001', mime_type: 'image/jpeg' }, file: { filename: 'photo.jpg' } },
      },
    });
    expect(JSON.stringify(event)).not.toContain('FAKE_SIGNED_TOKEN');
  });

  test('when an imported message comes, then it is marked as history', () => {
    expect(readKapsoBody(fixture('webhook_v2_received_history_sync'))).toMatchObject([{ message: { isHistory: true } }]);
  });

  test('when an outbound event lists statuses, then each is a fact with our id', () => {
    const events = readKapsoBody(fixture('webhook_v2_message_read'));
    expect(events).toMatchObject([
      { type: 'status', status: 'sent', correlationId: 'act:wf-0001:step-3', atMs: 1795165231000 },
      { type: 'status', status: 'delivered' },
      { type: 'status', status: 'read' },
    ]);
  });

  test('when a status failed, then Meta’s code is kept', () => {
    expect(readKapsoBody(fixture('webhook_v2_message_failed_no_sent_131026'))).toMatchObject([
      { status: 'failed', error: { code: 131026 } },
    ]);
  });

  test('when a text has NUL or half a surrogate pair, then it is made storable', () => {
    const body = Buffer.from(
      '{"messages":[{"id":"w1","from":"1","text":{"body":"a\\u0000b\\ud83dc"}},{"id":"w2","from":"1","text":{"body":"\\ud83d\\ude00"}}]}',
    );
    const texts = readKapsoBody(body).map((event) => event.type === 'message' && event.message.text);
    expect(texts).toEqual(['ab\ufffdc', '😀']);
  });

  test('when one entry of a Meta envelope is broken, then the others are still taken', () => {
    const envelope = JSON.parse(fixture('meta_raw_batch_mixed').toString());
    envelope.entry.unshift({ id: 'no changes' }, null, { changes: [null, { field: 'messages', value: { metadata: {} } }] });
    expect(read(envelope).map((event) => event.type)).toEqual(['skipped', 'skipped', 'skipped', 'skipped', 'message', 'message', 'status']);
  });

  test('when one item of a batch is broken, then the others are still taken', () => {
    const batch = JSON.parse(fixture('webhook_v2_batch_received_3').toString());
    batch.data[1] = { message: { id: 7 } };
    expect(read(batch).map((event) => event.type)).toEqual(['message', 'skipped', 'message']);
  });

  test.each([
    [null],
    [[]],
    ['text'],
    [42],
    [{}],
    [{ messages: 'no' }],
    [{ message: null }],
    [{ object: 'whatsapp_business_account', entry: [{ changes: [{ field: 'messages', value: null }] }] }],
    [{ messages: [{}] }],
    [{ batch: true, data: [null] }],
  ])('when the body is %j, then nothing is thrown and nothing is taken', (body) => {
    expect(read(body).every((event) => event.type === 'skipped')).toBe(true);
  });

  test('when something cannot be read, then its shape says nothing of its content', () => {
    const [event] = read({ message: { id: 'w', type: 'text', text: { body: 'marker-text' } }, conversation: { phone_number: null } });
    expect(event).toMatchObject({ type: 'skipped', reason: 'unreadable' });
    expect(JSON.stringify(event)).not.toContain('marker-text');
  });

  test('when a number id could not stand in a workflow id, then the message is not taken', () => {
    expect(read({ phone_number_id: 'a b/../c', messages: [{ id: 'w', from: '1', text: { body: 'x' } }] })[0]?.type).not.toBe('message');
  });

  test('when times are absurd, then the message is taken as of now', () => {
    const sent = (timestamp: unknown) => read({ messages: [{ id: 'w', from: '1', text: { body: 'x' }, timestamp }] })[0];
    for (const timestamp of ['99999999999999', '-5', 'soon', null]) {
      const event = sent(timestamp);
      expect(event?.type === 'message' && Math.abs(event.message.sentAtMs - Date.now())).toBeLessThan(5_000);
    }
  });
});
