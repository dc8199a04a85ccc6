import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readKapsoBody, readKapsoJson, type UnreadableEvent } from './events';

const FIXTURES = join(__dirname, '../../../test/fixtures/kapso');
const fixture = (name: string) => readFileSync(join(FIXTURES, `${name}.json`));
const read = (body: unknown, event?: string) => readKapsoBody(Buffer.from(JSON.stringify(body)), event);
const kinds = (name: string) => readKapsoBody(fixture(name)).map((event) => event.type);

describe('Kapso bodies', () => {
  const webhooks = readdirSync(FIXTURES).filter((file) => /^(webhook_|meta_raw_)/.test(file));

  test.each(webhooks)('when %s is read, then nothing in it is unreadable', (file) => {
    const events = readKapsoBody(readFileSync(join(FIXTURES, file)));
    expect(events.filter((event) => event.type === 'unreadable')).toEqual([]);
    const isInbound = /received|raw_message|batch_mixed/.test(file);
    expect(events.some((event) => event.type === 'message' && event.message.fromBusiness === undefined)).toBe(isInbound);
  });

  test('when a message comes through Kapso or from Meta directly, then it is the same message from the same person', () => {
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

  test('when a batch arrives, then each item is a message to the number that it names', () => {
    const events = readKapsoBody(fixture('webhook_v2_batch_received_3'));
    expect(events.map((event) => event.type === 'message' && event.message.text)).toEqual(['Halo', 'saya mau pesan', 'dua kotak']);
    expect(events.every((event) => event.type === 'message' && event.phoneNumberId === '100000000000001')).toBe(true);
  });

  test('when a Meta envelope mixes messages and statuses, then all are found', () => {
    expect(kinds('meta_raw_batch_mixed')).toEqual(['message', 'message', 'status']);
  });

  test('when the plain body arrives, then it is a message without a number', () => {
    const events = read({ messages: [{ from: '+62 811-1000-0001', text: { body: 'hi' }, id: 'wamid.P', timestamp: '1795165200' }] });
    expect(events).toEqual([
      {
        type: 'message',
        contact: { phone: '6281110000001' },
        message: { providerMessageId: 'wamid.P', kind: 'text', text: 'hi', sentAtMs: 1795165200000 },
      },
    ]);
  });

  test('when a person has no number, then the business-scoped id identifies them', () => {
    const [event] = readKapsoBody(fixture('webhook_v2_received_text_bsuid_only'));
    expect(event).toMatchObject({ contact: { businessScopedUserId: 'ID.10000000000000000001' } });
    expect(event).not.toHaveProperty('contact.phone');
  });

  test('when media arrive, then caption, ids and file are stored, but not the public URLs', () => {
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

  test.each<[string, object]>([
    ['Meta', { messages: [{ id: 'w', from: '1', text: { body: 'x' }, group_id: 'G1' }] }],
    ['Kapso', { message: { id: 'w', from: '1', text: { body: 'x' }, group_id: 'G1', kapso: { direction: 'inbound' } } }],
    [
      'Kapso, beside the message',
      { message: { id: 'w', from: '1', text: { body: 'x' }, kapso: { direction: 'inbound', group_id: 'G1' } } },
    ],
    ['Kapso, in the conversation', { message: { id: 'w', from: '1', kapso: { direction: 'inbound' } }, conversation: { group_id: 'G1' } }],
  ])('when a message was said in a group, as %s says, then it is marked as such', (_sender, body) => {
    expect(read(body)).toMatchObject([{ type: 'message', contact: { phone: '1' }, message: { isInGroup: true } }]);
  });

  test.each([undefined, null, ''])('when the group is %j, then it is a private message', (group_id) => {
    const [event] = read({ messages: [{ id: 'w', from: '1', text: { body: 'x' }, group_id }] });
    expect(event?.type === 'message' && event.message).not.toHaveProperty('isInGroup');
  });

  test('when an outbound event lists statuses, then each is a fact with our id', () => {
    const events = readKapsoBody(fixture('webhook_v2_message_read'));
    expect(events).toMatchObject([
      { type: 'status', status: 'sent', correlationId: 'act:wf-0001:step-3', atMs: 1795165231000 },
      { type: 'status', status: 'delivered' },
      { type: 'status', status: 'read' },
    ]);
  });

  test('when a status is failed, then Meta’s code is stored', () => {
    expect(readKapsoBody(fixture('webhook_v2_message_failed_no_sent_131026'))).toMatchObject([
      { status: 'failed', error: { code: 131026 } },
    ]);
  });

  test('when a text has NUL or a lone surrogate, then it is made storable', () => {
    const body = Buffer.from(
      '{"messages":[{"id":"w1","from":"1","text":{"body":"a\\u0000b\\ud83dc"}},{"id":"w2","from":"1","text":{"body":"\\ud83d\\ude00"}}]}',
    );
    const texts = readKapsoBody(body).map((event) => event.type === 'message' && event.message.text);
    expect(texts).toEqual(['ab\ufffdc', '😀']);
  });

  test('when one entry of a Meta envelope is broken, then the others are still read', () => {
    const envelope = JSON.parse(fixture('meta_raw_batch_mixed').toString());
    envelope.entry.unshift({ id: 'no changes' }, null, { changes: [null, { field: 'messages', value: { metadata: {} } }] });
    const unread = ['unreadable', 'unreadable', 'unreadable', 'unreadable'];
    expect(read(envelope).map((event) => event.type)).toEqual([...unread, 'message', 'message', 'status']);
  });

  test('when one item of a batch is broken, then the others are still read', () => {
    const batch = JSON.parse(fixture('webhook_v2_batch_received_3').toString());
    batch.data[1] = { message: { id: 7 } };
    expect(read(batch).map((event) => event.type)).toEqual(['message', 'unreadable', 'message']);
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
    expect(read(body).every((event) => event.type === 'skipped' || event.type === 'unreadable')).toBe(true);
  });

  test('when something cannot be read, then its shape does not reveal its content', () => {
    const [event] = read({ message: { id: 'w', type: 'text', text: { body: 'marker-text' } }, conversation: { phone_number: null } });
    expect(event).toMatchObject({ type: 'unreadable', reason: 'direction_unknown' });
    const { item: _item, ...told } = event as UnreadableEvent;
    expect(JSON.stringify(told)).not.toContain('marker-text');
  });

  test('when times are absurd, then the message is taken as of now', () => {
    const sent = (timestamp: unknown) => read({ messages: [{ id: 'w', from: '1', text: { body: 'x' }, timestamp }] })[0];
    const tomorrow = String(Math.floor(Date.now() / 1_000) + 86_400);
    for (const timestamp of ['99999999999999', '-5', 'soon', null, tomorrow]) {
      const event = sent(timestamp);
      expect(event?.type === 'message' && Math.abs(event.message.sentAtMs - Date.now())).toBeLessThan(5_000);
    }
  });
});

const RECEIVED = 'whatsapp.message.received';
const text = { id: 'w1', timestamp: '1795165200', type: 'text', text: { body: 'hi' } };
const fromAna = { from: '15550100', kapso: { direction: 'inbound' } };

/** A webhook of Meta's with one message, and what stands beside it. */
const meta = (message: object, beside: object = {}) => ({
  object: 'whatsapp_business_account',
  entry: [{ changes: [{ field: 'messages', value: { metadata: { phone_number_id: '1' }, messages: [message], ...beside } }] }],
});

describe('incomplete bodies', () => {
  test.each<[string, unknown, object]>([
    ['an empty number id', { message: { ...text, ...fromAna }, phone_number_id: '' }, { contact: { phone: '15550100' } }],
    ['a number id that is a number', { message: { ...text, ...fromAna }, phone_number_id: 42 }, { phoneNumberId: '42' }],
    [
      'the number id in the conversation only',
      { message: { ...text, ...fromAna }, conversation: { phone_number_id: '7' } },
      { phoneNumberId: '7' },
    ],
    [
      'an odd number id, and a good one in the conversation',
      { message: { ...text, ...fromAna }, phone_number_id: { a: 1 }, conversation: { phone_number_id: '7' } },
      { phoneNumberId: '7' },
    ],
    [
      'ids that are numbers',
      { message: { ...text, id: 17, from: 15550100, kapso: { direction: 'inbound' } } },
      { message: { providerMessageId: '17' }, contact: { phone: '15550100' } },
    ],
    [
      'kapso as a list',
      { message: { ...text, from: '15550100', kapso: [{ direction: 'inbound', origin: 'history_sync' }] } },
      { message: { isHistory: true } },
    ],
    ['a text that is no object', { message: { ...text, ...fromAna, text: 'hi' } }, { message: { text: 'hi' } }],
    ['a text that is a number', { message: { ...text, ...fromAna, text: { body: 4711 } } }, { message: { text: '4711' } }],
    ['no type', { message: { ...text, ...fromAna, type: undefined } }, { message: { kind: 'text', text: 'hi' } }],
    [
      'no type, with an image',
      { message: { id: 'w1', ...fromAna, image: { id: 'm1', caption: 'look' } } },
      { message: { kind: 'image', text: 'look' } },
    ],
    ['neither a type nor a content', { message: { id: 'w1', ...fromAna } }, { message: { kind: 'unknown' } }],
    ['a type that is no text', { message: { ...text, ...fromAna, type: ['text'] } }, { message: { kind: 'text', text: 'hi' } }],
    [
      'a text in another form',
      { message: { ...text, ...fromAna, text: { words: 'hi' } } },
      { message: { payload: { text: { words: 'hi' } } } },
    ],
    ['a time in milliseconds', { message: { ...text, ...fromAna, timestamp: 1795165200123 } }, { message: { sentAtMs: 1795165200123 } }],
    [
      'a time in ISO 8601',
      { message: { ...text, ...fromAna, timestamp: '2026-11-20T09:00:00Z' } },
      { message: { sentAtMs: 1795165200000 } },
    ],
    ['the message in a list', { message: [{ ...text, ...fromAna }], phone_number_id: '1' }, { phoneNumberId: '1' }],
    ['the item in `data`', { data: { message: { ...text, ...fromAna }, phone_number_id: '1' } }, { phoneNumberId: '1' }],
    [
      'a batch without its mark',
      { type: RECEIVED, data: [{ message: { ...text, from: '15550100' } }] },
      { contact: { phone: '15550100' } },
    ],
    [
      'a batch that has the number',
      { batch: true, phone_number_id: '1', data: [{ message: { ...text, ...fromAna } }] },
      { phoneNumberId: '1' },
    ],
    ['a list of items', [{ message: { ...text, ...fromAna }, phone_number_id: '1' }], { phoneNumberId: '1' }],
    ['a change alone', { field: 'messages', value: { messages: [{ ...text, from: '15550100' }] } }, { contact: { phone: '15550100' } }],
    ['a value alone', { metadata: { phone_number_id: '1' }, messages: { ...text, from: '15550100' } }, { phoneNumberId: '1' }],
    ['no metadata', { ...meta({ ...text, from: '15550100' }, { metadata: null }) }, { contact: { phone: '15550100' } }],
    [
      'no sender beside a single contact',
      meta(text, { contacts: [{ wa_id: '15550100', profile: { name: 'Ana' } }] }),
      { contact: { phone: '15550100', name: 'Ana' } },
    ],
    ['no sender beside a single scoped id', meta(text, { contacts: { user_id: 'BR.1' } }), { contact: { businessScopedUserId: 'BR.1' } }],
    [
      'a number with a plus beside a contact without',
      meta({ ...text, from: '+1 555 0100' }, { contacts: [{ wa_id: '15550100', user_id: 'BR.1' }] }),
      { contact: { phone: '15550100', businessScopedUserId: 'BR.1' } },
    ],
    [
      'a scoped id beside a contact with the number',
      meta({ ...text, from_user_id: 'BR.1' }, { contacts: [{ wa_id: '15550100', user_id: 'BR.1' }] }),
      { contact: { phone: '15550100', businessScopedUserId: 'BR.1' } },
    ],
    [
      'a contact of another form among others',
      meta({ ...text, from: '15550100' }, { contacts: [null, { wa_id: '15550100', profile: 'Ana', user_id: 'BR.1' }] }),
      { contact: { businessScopedUserId: 'BR.1' } },
    ],
    [
      'a change of ids',
      meta({ id: 'w1', type: 'system', system: { type: 'user_changed_user_id', previous_user_id: 'BR.1', user_id: 'BR.2' } }),
      {
        contact: { businessScopedUserId: 'BR.2', formerBusinessScopedUserId: 'BR.1' },
        message: { kind: 'system', payload: { system: { user_id: 'BR.2' } } },
      },
    ],
    [
      'a change of numbers',
      meta({
        id: 'w1',
        from: '15550100',
        from_user_id: 'BR.1',
        type: 'system',
        system: { type: 'user_changed_number', wa_id: '15550101' },
      }),
      { contact: { phone: '15550101', formerPhone: '15550100', formerBusinessScopedUserId: 'BR.1' }, message: { kind: 'system' } },
    ],
    [
      'a change of numbers in a body of Kapso’s',
      {
        message: { id: 'w1', type: 'system', system: { type: 'user_changed_number', wa_id: '15550101' }, kapso: { direction: 'inbound' } },
        conversation: { phone_number: '+15550100' },
      },
      { contact: { phone: '15550101', formerPhone: '15550100' } },
    ],
    [
      'a change of numbers that does not name the new one',
      meta({ id: 'w1', from: '15550100', type: 'system', system: { type: 'user_changed_number' } }),
      { contact: { phone: '15550100' } },
    ],
    [
      'a notice that the customer’s keys have changed',
      meta({ id: 'w1', from: '15550100', type: 'system', system: { type: 'customer_identity_changed', wa_id: '15550101' } }),
      { contact: { phone: '15550100' } },
    ],
    [
      'the sender in words',
      { message: { ...text, ...fromAna, from: 'Ana' }, conversation: { phone_number: '+1 555 0100' } },
      { contact: { phone: '15550100' } },
    ],
  ])('when a message has %s, then it is a message all the same', (_what, body, expected) => {
    expect(read(body)).toMatchObject([{ type: 'message', message: { providerMessageId: expect.any(String) }, ...expected }]);
  });

  test('when a message without a sender comes with several contacts, then none of them becomes its sender', () => {
    const contacts = [{ wa_id: '15550100' }, { wa_id: '15550101' }];
    expect(read(meta(text, { contacts }))).toMatchObject([
      { type: 'unreadable', reason: 'no_sender', providerMessageId: 'w1', phoneNumberId: '1' },
    ]);
  });

  test('when a message names its sender and comes with a single contact with another number, then that contact is ignored', () => {
    const [event] = read(
      meta({ ...text, from: '15550100' }, { contacts: [{ wa_id: '15550101', profile: { name: 'Bob' }, user_id: 'BR.9' }] }),
    );
    expect(event).toMatchObject({ type: 'message', contact: { phone: '15550100' } });
    expect(JSON.stringify(event)).not.toMatch(/Bob|BR\.9/);
  });

  test('when a payload is nested deeper than PostgreSQL reads, then the message comes without it', () => {
    const deep = JSON.parse(`${'['.repeat(1_000)}${']'.repeat(1_000)}`);
    expect(read({ message: { ...fromAna, id: 'w1', type: 'contacts', contacts: deep } })).toMatchObject([
      { message: { payload: { tooLarge: true } } },
    ]);
  });

  test('when statuses have no number or an odd format, then what is there is read', () => {
    expect(read({ statuses: { id: 'w1', status: 'SENT', timestamp: 1795165200 } })).toMatchObject([
      { type: 'status', status: 'sent', providerMessageId: 'w1', atMs: 1795165200000 },
    ]);
    const failed = { id: 'w1', status: 'failed', errors: { code: '131026', title: 5 } };
    expect(read(meta({}, { messages: undefined, statuses: [failed] }))).toMatchObject([
      { status: 'failed', error: { code: 131026, title: '5' } },
    ]);
  });
});

describe('what the owner does in the phone app', () => {
  const echoes = (...message_echoes: object[]) => ({
    object: 'whatsapp_business_account',
    entry: [{ id: '1', changes: [{ field: 'smb_message_echoes', value: { metadata: { phone_number_id: '7' }, message_echoes } }] }],
  });
  const written = { id: 'w1', from: '15559999', to: '15550100', type: 'text', text: { body: 'from the phone' } };

  test("when Kapso says that a message was typed there, then it is the owner's message to the customer, and its status", () => {
    expect(readKapsoBody(fixture('webhook_v2_message_sent_business_app'))).toMatchObject([
      {
        type: 'message',
        phoneNumberId: '100000000000001',
        contact: { phone: '6281110000001', name: 'Budi Contoh' },
        message: { kind: 'text', text: 'Dibalas dari HP oleh admin', fromBusiness: {}, isHistory: true },
      },
      { type: 'status', status: 'sent' },
    ]);
  });

  test('when Meta echoes a message, an edit and a deletion, then each names the customer and what it is about', () => {
    const edit = { original_message_id: 'w1', message: { type: 'text', text: { body: 'changed' } } };
    const body = echoes(
      written,
      { ...written, id: 'w2', type: 'edit', text: undefined, edit },
      { id: 'w3', to_user_id: 'BR.1', type: 'revoke', revoke: { original_message_id: 'w1' } },
    );
    expect(read(body)).toMatchObject([
      { phoneNumberId: '7', contact: { phone: '15550100' }, message: { text: 'from the phone', fromBusiness: {} } },
      { message: { providerMessageId: 'w2', kind: 'text', text: 'changed', fromBusiness: { edits: 'w1' } } },
      { contact: { businessScopedUserId: 'BR.1' }, message: { providerMessageId: 'w3', fromBusiness: { deletes: 'w1' } } },
    ]);
  });

  test('when nobody knows to whom it went, then it is a dead letter, and reads in the same way from there', () => {
    const [letter] = read(echoes({ ...written, to: undefined }));
    expect(letter).toMatchObject({ type: 'unreadable', reason: 'no_recipient', phoneNumberId: '7', providerMessageId: 'w1' });
    const item = letter?.type === 'unreadable' ? letter.item : undefined;
    expect(read(item as object)).toMatchObject([{ type: 'unreadable', reason: 'no_recipient', phoneNumberId: '7' }]);
    expect(read({ phone_number_id: '1', message: { ...text, kapso: { origin: 'business_app' } } })).toMatchObject([
      { reason: 'no_recipient' },
    ]);
  });
});

describe('whose message it is', () => {
  const conversation = { phone_number: '+1 555 0100', business_scoped_user_id: 'BR.1' };

  test.each<[string, object, string | undefined]>([
    ['the event', { message: text }, 'whatsapp.message.delivered'],
    ['its status', { message: { ...text, kapso: { status: 'sent' } } }, undefined],
    ['its statuses', { message: { ...text, kapso: { statuses: [{ id: 'w1', status: 'read' }] } } }, undefined],
    [
      'our id',
      { message: { ...text, kapso: { origin: 'business_app', statuses: [{ id: 'w1', status: 'sent', biz_opaque_callback_data: 'x' }] } } },
      undefined,
    ],
    ['its recipient', { message: { ...text, to: '15550100', kapso: { status: 'delivered' } } }, undefined],
    [
      'its recipient beside the business as sender',
      { message: { ...text, from: '15559999', to: '15550100', kapso: { status: 'delivered' } }, conversation },
      undefined,
    ],
    ['what it says itself, whatever the event', { message: { ...text, kapso: { direction: 'OUTBOUND ', status: 'sent' } } }, RECEIVED],
  ])('when only %s tells that it is ours, then it is a status and no message', (_what, body, event) => {
    expect(read({ phone_number_id: '1', ...body }, event)).toMatchObject([{ type: 'status', providerMessageId: 'w1' }]);
  });

  test.each<[string, object, string | undefined]>([
    ['the event', { message: { ...text, from: '15550100' } }, RECEIVED],
    ['its status', { message: { ...text, from: '15550100', kapso: { status: 'received' } } }, undefined],
    ['its sender', { message: { ...text, from: '15550100' }, conversation }, undefined],
    ["its sender's scoped id", { message: { ...text, from_user_id: 'BR.1' }, conversation }, undefined],
  ])('when only %s tells that it is the customer’s, then it is a message', (_what, body, event) => {
    expect(read(body, event)).toMatchObject([{ type: 'message' }]);
  });

  test.each<[string, object, string | undefined]>([
    ['nothing', { message: { ...text, from: '15550100' } }, undefined],
    [
      'nothing (legacy form)',
      { message: { whatsapp_message_id: 'w1', message_type: 'text', content: 'hi', phone_number: '15550100' } },
      undefined,
    ],
    ['the event against its statuses', { message: { ...text, from: '15550100', kapso: { statuses: [{}] } } }, RECEIVED],
    ['the event against its sender', { message: { ...text, from: '15550100' }, conversation }, 'whatsapp.message.sent'],
    ['a sender that is not the customer', { message: { ...text, from: '15559999' }, conversation }, undefined],
    ['an event of ours for a list of messages', { messages: [{ ...text, from: '15550100' }] }, 'whatsapp.message.sent'],
  ])('when %s tells, then it is neither, and a person has to look', (_what, body, event) => {
    expect(read(body, event)).toMatchObject([{ type: 'unreadable', reason: 'direction_unknown', providerMessageId: 'w1' }]);
  });

  test('when an outbound message says nothing of its status, then the event does', () => {
    expect(read({ message: { ...text, kapso: { direction: 'outbound' } }, phone_number_id: '1' }, 'whatsapp.message.read')).toMatchObject([
      { type: 'status', status: 'read' },
    ]);
    expect(read({ message: { ...text, kapso: { direction: 'outbound' } }, phone_number_id: '1' })).toMatchObject([
      { type: 'unreadable', providerMessageId: 'w1' },
    ]);
  });

  test('when one of its statuses cannot be read, then the others are, and the item is stored', () => {
    const item = {
      message: { ...text, kapso: { direction: 'outbound', statuses: [{ id: 'w1', status: 'sent' }, null] } },
      phone_number_id: '1',
    };
    expect(read(item)).toMatchObject([
      { type: 'status', status: 'sent' },
      { type: 'unreadable', item },
    ]);
  });
});

describe('what cannot be read', () => {
  const odd = { message: { ...text, ...fromAna }, phone_number_id: 'a b/../c' };

  test.each<[string, string, unknown, object]>([
    ['a number id that could not stand in a workflow id', 'odd_number_id', odd, { providerMessageId: 'w1', item: odd }],
    [
      'a number id beyond the precision of JSON',
      'odd_number_id',
      JSON.parse('{"messages":[{"id":"w1","from":"1"}],"phone_number_id":12345678901234567890}'),
      {},
    ],
    [
      'a status for an odd number',
      'odd_number_id',
      { statuses: [{ id: 'w1', status: 'sent' }], phone_number_id: {} },
      { providerMessageId: 'w1' },
    ],
    ['a message without an id', 'no_id', { message: { ...text, ...fromAna, id: undefined }, phone_number_id: '1' }, { phoneNumberId: '1' }],
    [
      'a message with the id of a database only',
      'no_id',
      { message: { id: 'u', message_type: 'text', direction: 'inbound', phone_number: '1' } },
      {},
    ],
    ['a message without a sender', 'no_sender', { message: { ...text, kapso: { direction: 'inbound' } } }, { providerMessageId: 'w1' }],
    ['a sender in words', 'no_sender', { message: { ...text, ...fromAna, from: 'Ana' } }, { providerMessageId: 'w1' }],
    ['a status without a status', 'unreadable', { statuses: [{ id: 'w1' }] }, { providerMessageId: 'w1' }],
    ['a status without an id', 'no_id', { statuses: [{ status: 'sent' }] }, {}],
    ['a message that is a text', 'unreadable', { message: 'hi' }, { item: { message: 'hi' } }],
    ['an envelope without entries', 'unreadable', { object: 'whatsapp_business_account' }, {}],
    ['a change without messages', 'unreadable', meta({}, { messages: undefined }), {}],
    ['a batch without items', 'unreadable', { batch: true }, {}],
    ['a message event without a message', 'unreadable', { is_new_conversation: true, conversation: {} }, {}],
    ['a text', 'unreadable', 'hi', { item: 'hi' }],
    ['a number', 'unreadable', 42, { item: 42 }],
  ])('when %s comes, then it says so', (_what, reason, body, expected) => {
    expect(read(body)).toMatchObject([
      { type: 'unreadable', reason, detail: expect.stringMatching(/\.$/), shape: expect.any(String), ...expected },
    ]);
  });

  test('when a body is not JSON or nested too deeply, then it is stored as a whole', () => {
    expect(readKapsoBody(Buffer.from('{"message": {'))).toMatchObject([{ type: 'unreadable', reason: 'not_json' }]);
    const deep = `{"data":${'['.repeat(100_000)}"\\u0000"${']'.repeat(100_000)}}`;
    const [event] = readKapsoBody(Buffer.from(deep));
    expect(event).toMatchObject({ type: 'unreadable', reason: 'too_deep' });
    expect(event).not.toHaveProperty('item');
  });

  test('when a list is longer than anything that is ever sent, then it is a single item', () => {
    expect(read({ messages: Array.from({ length: 20_000 }, () => null) })).toMatchObject([{ type: 'unreadable' }]);
  });

  test('when bodies are nested in bodies too often, then it is a single item', () => {
    let body: object = { message: { ...text, ...fromAna } };
    for (let level = 0; level < 50; level += 1) body = { data: [body] };
    expect(read(body)).toMatchObject([{ type: 'unreadable' }]);
  });

  test.each<[string, unknown]>([
    [
      'an item of a batch',
      { type: RECEIVED, batch: true, phone_number_id: '1', data: [{ message: { ...text, from: '1' } }, { message: { id: 5.5 } }] },
    ],
    ['a message of Meta’s', meta({ id: 'w9' }, { contacts: [{ wa_id: '1' }, { wa_id: '2' }] })],
    ['a status of Meta’s', meta({}, { messages: undefined, statuses: [{ id: 'w9' }] })],
    ['an entry', { object: 'whatsapp_business_account', entry: [{ id: '9' }] }],
    ['a change', { object: 'whatsapp_business_account', entry: [{ changes: [{ field: 'messages', value: 5 }] }] }],
  ])('when %s cannot be read, then what is kept of it leads to the same event again', (_what, body) => {
    const unread = read(body).filter((event): event is UnreadableEvent => event.type === 'unreadable');
    expect(unread).toHaveLength(1);
    expect(readKapsoJson(unread[0]?.item, RECEIVED)).toEqual(unread);
  });

  test('when a message that cannot be read comes with many contacts, then it is stored with its own', () => {
    const contacts = Array.from({ length: 500 }, (_, index) => ({ wa_id: `1555${index}` }));
    const kept = (message: object) => (read(meta(message, { contacts }))[0] as UnreadableEvent).item;
    expect(kept({ ...text, id: null, from: '1555321' })).toMatchObject({ contacts: [{ wa_id: '1555321' }] });
    expect(kept(text)).toMatchObject({ contacts: contacts.slice(0, 5) });
  });
});

test.each<[string, unknown, string | undefined]>([
  ['a conversation that was created', { conversation: { id: 'c' }, phone_number_id: '1' }, 'whatsapp.conversation.created'],
  [
    'a field of Meta’s that holds no messages',
    { object: 'whatsapp_business_account', entry: [{ changes: [{ field: 'account_update', value: {} }] }] },
    undefined,
  ],
  ['an error of the account', meta({}, { messages: undefined, errors: [{ code: 1 }] }), undefined],
  ['another product of Meta’s', { object: 'instagram', entry: [{ changes: [{ field: 'messages', value: {} }] }] }, undefined],
  ['a status that says nothing of a send', { statuses: [{ id: 'w1', status: 'pending' }] }, undefined],
  ['a status with the name of a property', { statuses: [{ id: 'w1', status: 'constructor' }] }, undefined],
  [
    'a message of ours in the legacy form',
    { message: { whatsapp_message_id: 'w1', message_type: 'text', direction: 'outbound' } },
    undefined,
  ],
  ['something else', { nothing: 'for us' }, undefined],
])('when %s comes, then it is understood and skipped', (_what, body, event) => {
  expect(read(body, event)).toEqual([{ type: 'skipped', shape: expect.any(String) }]);
});
