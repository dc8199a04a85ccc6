import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { secretsIn } from '../../../test/support/vapi-secrets';
import { readCall, readCallEvent, readReport } from './report';

const FIXTURES = join(__dirname, '../../../test/fixtures/vapi');
const fixture = (name: string) => JSON.parse(readFileSync(join(FIXTURES, `${name}.json`), 'utf8'));
const message = (name: string) => fixture(name).message;
const CALL = '0199aaaa-0000-7000-8000-000000000001';
const OWN = '0b8c1b6e-1111-8222-a333-444455556666';

describe('an end-of-call report', () => {
  test('when a complete report is parsed, then every field is translated into our terms', () => {
    const report = readReport(message('end-of-call-report.completed'));
    expect(report).toMatchObject({
      providerCallId: CALL,
      direction: 'outbound',
      status: 'ended',
      endedReason: 'customer-ended-call',
      startedAt: '2026-11-20T15:00:09.800Z',
      endedAt: '2026-11-20T15:01:11.500Z',
      durationSeconds: 62,
      cost: 0.0932,
      recordingUrl: `https://storage.example.test/${CALL}-mono.wav`,
      summary: 'Test Person confirmed the appointment on 1 December at 10:00.',
      structuredData: { confirmed: true, appointmentDate: '2026-12-01', callbackRequested: false },
      successEvaluation: 'true',
      fromNumber: '+15555550100',
      toNumber: '+15555550123',
      assistantId: '22222222-2222-4222-8222-222222222222',
      phoneNumberId: '33333333-3333-4333-8333-333333333333',
      maxDurationSeconds: 600,
      isEnded: true,
      providerContext: { type: 'outboundPhoneCall', name: 'req-0001', metadata: { requestId: 'req-0001', source: 'example' } },
      raw: { type: 'end-of-call-report', costBreakdown: { total: 0.0932 }, call: { id: CALL } },
    });
    expect(report?.ownCallId).toBeUndefined();
    expect(report?.transcript).toMatch(/^AI: Hello/);
    expect(report?.messages?.map(({ role }) => role)).toEqual(['assistant', 'user', 'assistant', 'user', 'assistant', 'user']);
    expect(report?.messages?.[1]).toEqual({
      role: 'user',
      text: 'Yes, speaking.',
      time: '2026-11-20T15:00:15.100Z',
      secondsFromStart: 5.2,
    });
  });

  test('when the same call is fetched from the API, then the result is the same', () => {
    const report = readReport(message('end-of-call-report.completed'));
    const snapshot = readCall(fixture('get-call.ended.200'));
    for (const name of [
      'transcript',
      'messages',
      'summary',
      'structuredData',
      'durationSeconds',
      'cost',
      'recordingUrl',
      'isEnded',
    ] as const) {
      expect(snapshot?.[name]).toEqual(report?.[name]);
    }
    expect(readCall(fixture('get-call.in-progress.200'))).toMatchObject({ providerCallId: CALL, status: 'in-progress', isEnded: false });
  });

  test('when only the required fields are present, then nothing is made up', () => {
    expect(readReport(message('end-of-call-report.minimal'))).toEqual({
      providerCallId: CALL,
      direction: 'outbound',
      status: 'ended',
      endedReason: 'customer-ended-call',
      isEnded: true,
      providerContext: { orgId: '11111111-1111-4111-8111-111111111111', createdAt: '2026-11-20T15:00:00.000Z' },
      raw: {
        type: 'end-of-call-report',
        status: 'ended',
        endedReason: 'customer-ended-call',
        analysis: {},
        artifact: {},
        call: { id: CALL, createdAt: '2026-11-20T15:00:00.000Z', updatedAt: '2026-11-20T15:00:00.000Z' },
      },
    });
  });

  test('when nobody answered, then there is no start time, and the duration is 0', () => {
    const report = readReport(message('end-of-call-report.no-answer'));
    expect([report?.startedAt, report?.durationSeconds, report?.transcript, report?.messages]).toEqual([
      undefined,
      0,
      undefined,
      undefined,
    ]);
  });

  test('when the snapshot inside a message is stale, then its status is ignored', () => {
    expect(readCallEvent(message('status-update.in-progress'), 'status-update')).toMatchObject({
      status: 'in-progress',
      atMs: 1795186809800,
    });
    const report = { ...message('end-of-call-report.completed') };
    report.call = { ...report.call, status: 'ringing', endedReason: 'customer-busy' };
    expect(readReport(report)).toMatchObject({ status: 'ended', endedReason: 'customer-ended-call' });
  });
});

describe('invalid data', () => {
  const call = (fields: object) => ({ id: 'c1', ...fields });

  test('when numbers are strings, and times are seconds or milliseconds, then they are parsed', () => {
    const report = readCall(call({ cost: '0.5', startedAt: 1795186800, endedAt: '1795186860500', durationMs: 1 }));
    expect(report).toMatchObject({ cost: 0.5, startedAt: '2026-11-20T15:00:00.000Z', durationSeconds: 61, isEnded: true });
  });

  test('when fields have the wrong type or an implausible value, then they are dropped, and the rest stays', () => {
    const odd = {
      cost: { usd: 1 },
      startedAt: 'soon',
      endedAt: -5,
      analysis: 'none',
      artifact: { messages: 7, transcript: 'AI: hi' },
      customer: [],
    };
    expect(readCall(call({ ...odd, status: 'ended', endedReason: 42, phoneNumberId: null }))).toEqual({
      providerCallId: 'c1',
      direction: 'outbound',
      status: 'ended',
      customerSpoke: false,
      transcript: 'AI: hi',
      isEnded: true,
      providerContext: {},
      raw: { status: 'ended', artifact: {}, call: { id: 'c1' } },
    });
    expect(readCall(call({ cost: '1e999', startedAt: 1e300, endedAt: '2026-13-45' }))).not.toHaveProperty('cost');
  });

  test('when the end is before the start, then there is no duration', () => {
    expect(readCall(call({ startedAt: '2026-11-20T15:00:10Z', endedAt: '2026-11-20T15:00:00Z' }))).not.toHaveProperty('durationSeconds');
  });

  test.each([null, 'x', [], {}, { id: '' }, { id: 7 }, { id: '../../x' }, { call: { id: 'c1' } }])(
    'when the body is %j, then it is not a call',
    (body) => {
      expect(readCall(body)).toBeUndefined();
      expect(readReport({ type: 'end-of-call-report', call: body })).toBeUndefined();
    },
  );

  test('when a status or reason is unknown, then it passes; when it is free text, then it is dropped', () => {
    const event = (fields: object) => readCallEvent({ call: { id: 'c1' }, ...fields }, 'status-update');
    expect(event({ status: 'on-hold.v2', endedReason: 'call.new-thing' })).toMatchObject({
      status: 'on-hold.v2',
      endedReason: 'call.new-thing',
    });
    expect(event({ status: 'call to +15555550123 is on hold' })).not.toHaveProperty('status');
  });

  test('when text has characters that PostgreSQL cannot store, then they are removed or replaced everywhere', () => {
    const bad = 'a\0b\ud800c';
    const report = readCall(
      call({
        analysis: { summary: bad, structuredData: { [bad]: [bad] } },
        artifact: { messages: [{ role: 'user', message: bad }], transcript: bad, structuredOutputs: { [bad]: { result: bad } } },
        metadata: { [bad]: bad },
      }),
    );
    const kept = JSON.stringify(report);
    expect(kept).toContain('ab\ufffdc');
    expect(kept).not.toMatch(/\\u0000|\\ud800/);
  });

  test('when texts and lists are huge, then they are truncated', () => {
    const report = readCall(
      call({
        artifact: {
          transcript: 'x'.repeat(3_000_000),
          messages: Array.from({ length: 9_000 }, () => ({ role: 'user', message: 'y'.repeat(50) })),
        },
        analysis: { structuredData: { text: 'z'.repeat(1_000_000) } },
        endedReason: 'r'.repeat(10_000),
      }),
    );
    expect(JSON.stringify(report).length).toBeLessThan(1_400_000);
    expect(report?.structuredData).toBeUndefined();
  });
});

describe('nesting', () => {
  test.each([40, 1_000, 6_000, 60_000])('when data is nested %i levels deep, then the rest of the call is still parsed', (depth) => {
    const deep = JSON.parse(`${'{"a":['.repeat(depth)}1${']}'.repeat(depth)}`);
    const report = readCall({ id: 'c1', analysis: { summary: 'ok', structuredData: deep }, metadata: { deep }, artifact: deep });
    expect(report).toMatchObject({ providerCallId: 'c1', summary: 'ok' });
    expect(report).not.toHaveProperty('structuredData');
    expect(report?.providerContext).toEqual({});
  });
});

describe('our id', () => {
  test.each([
    ['the overrides', { assistantOverrides: { metadata: { parleyCallId: OWN } } }],
    ['the metadata', { metadata: { parleyCallId: OWN.toUpperCase() } }],
    ['the assistant', { assistant: { metadata: { parleyCallId: OWN } } }],
    ['the name', { name: OWN }],
  ])('when Vapi returns it in %s, then it is found', (_where, fields) => {
    expect(readCall({ id: 'c1', ...fields })?.ownCallId).toBe(OWN);
  });

  test('when it is next to the call, then it is found; when it is not a UUID, then it is ignored', () => {
    expect(readReport({ call: { id: 'c1' }, assistant: { metadata: { parleyCallId: OWN } } })?.ownCallId).toBe(OWN);
    expect(readCall({ id: 'c1', name: 'req-0001', metadata: { parleyCallId: "x'; DROP" } })).not.toHaveProperty('ownCallId');
  });
});

describe('direction', () => {
  const parties = { customer: { number: '+15555550123' }, phoneNumber: { id: 'n1', number: '+15555550100' } };

  test.each([
    ['outboundPhoneCall', 'outbound', '+15555550100', '+15555550123'],
    ['inboundPhoneCall', 'inbound', '+15555550123', '+15555550100'],
    ['webCall', 'web', '+15555550100', '+15555550123'],
    ['vapi.websocketCall', 'web', '+15555550100', '+15555550123'],
    ['somethingNew', 'outbound', '+15555550100', '+15555550123'],
  ])('when the type is %s, then the direction is %s', (type, direction, fromNumber, toNumber) => {
    expect(readCall({ id: 'c1', type, ...parties })).toMatchObject({ direction, fromNumber, toNumber, phoneNumberId: 'n1' });
    expect(readReport({ call: { id: 'c1', type }, ...parties })).toMatchObject({ direction, fromNumber, toNumber });
  });
});

describe('structured data', () => {
  test('when there are only structured outputs, then they are keyed by name, or else by id', () => {
    const artifact = { structuredOutputs: { s1: { name: 'Outcome', result: { ok: true } }, s2: { result: 'x' }, s3: { name: 'Empty' } } };
    expect(readCall({ id: 'c1', analysis: { structuredData: {} }, artifact })?.structuredData).toEqual({ Outcome: { ok: true }, s2: 'x' });
  });
});

describe('secrets', () => {
  const files = readdirSync(FIXTURES).filter((file) => file.endsWith('.json') && !file.startsWith('hmac'));

  test('when the fixtures are searched, then they contain secrets, so that the next test can fail', () => {
    const found = secretsIn(fixture('end-of-call-report.completed'));
    expect(found).toEqual(expect.arrayContaining(['FAKE_TWILIO_AUTH_TOKEN', 'Bearer FAKE-WEBHOOK-TOKEN', 'FAKE_CALL_SID_1']));
    expect(found.length).toBeGreaterThan(8);
  });

  test.each(files)('when %s is parsed in any way, then none of its secrets passes', (file) => {
    const body = JSON.parse(readFileSync(join(FIXTURES, file), 'utf8'));
    const readings = [
      readCall(body),
      readCall(body.message?.call),
      readReport(body.message),
      readCallEvent(body.message, 'status-update'),
      // A report's fields in the places where the other parsers look.
      readCall({ ...body.message, ...body.message?.call }),
      readReport({ call: body, ...body }),
    ];
    const kept = JSON.stringify(readings);
    for (const secret of secretsIn(body)) expect(kept).not.toContain(secret);
  });

  test('when the recording is a presigned URL, then its credentials are removed', () => {
    const artifact = { recordingUrl: 'https://user:pass@bucket.example.test/a/b.wav?X-Amz-Signature=FAKE#t' };
    expect(readCall({ id: 'c1', artifact })?.recordingUrl).toBe('https://bucket.example.test/a/b.wav');
  });

  test('when metadata contains a secret, then it is removed at any depth', () => {
    const metadata = { order: 7, nested: [{ apiKey: 'FAKE' }], accessToken: 'FAKE', 'phoneNumber.twilioAuthToken': 'FAKE' };
    expect(readCall({ id: 'c1', metadata })?.providerContext.metadata).toEqual({ order: 7, nested: [{}] });
  });
});

describe('facts that are only inside the nested call', () => {
  const facts = {
    endedReason: 'customer-ended-call',
    startedAt: '2026-11-20T15:00:10.000Z',
    endedAt: '2026-11-20T15:01:10.000Z',
    cost: 0.09,
    analysis: { summary: 'All well.', structuredData: { ok: true }, successEvaluation: 'true' },
    artifact: {
      transcript: 'AI: hi\nUser: hello\n',
      messages: [{ role: 'user', message: 'hello' }],
      recordingUrl: 'https://r.example.test/x.wav',
    },
  };
  const report = (message: object, call: object) => readReport({ type: 'end-of-call-report', ...message, call: { id: 'c1', ...call } });

  test('when the message has none, then they are read there, as if they were in the message', () => {
    const inside = report({}, facts);
    const { providerContext: _context, ...read } = report(facts, {}) ?? {};
    expect(read).toMatchObject({ summary: 'All well.', customerSpoke: true, durationSeconds: 60, cost: 0.09 });
    expect(inside).toMatchObject(read);
  });

  test('when the message has others, then those win', () => {
    const stale = { ...facts, endedReason: 'silence-timed-out', cost: 0, analysis: { summary: 'Old.' }, artifact: { messages: [] } };
    expect(report(facts, stale)).toMatchObject({ ...report(facts, {}), providerContext: {} });
  });

  test('when the call inside is a snapshot of a live one, then its running costs are ignored', () => {
    expect(report({ endedReason: 'customer-busy' }, { status: 'ringing', cost: 0.01 })).not.toHaveProperty('cost');
  });

  test('when a status-update names no status or no reason, then those of the call inside are read', () => {
    const ended = readCallEvent({ type: 'status-update', call: { id: 'c1', status: 'ended', ...facts } }, 'status-update');
    expect(ended).toMatchObject({ status: 'ended', endedReason: facts.endedReason, endedAt: facts.endedAt, startedAt: facts.startedAt });
    const live = readCallEvent({ type: 'status-update', status: 'in-progress', call: { id: 'c1', ...facts } }, 'status-update');
    expect(live).not.toHaveProperty('endedReason');
  });
});

describe('whether the person on the phone spoke', () => {
  const spoke = (endedReason: string, artifact: object) =>
    readReport({ type: 'end-of-call-report', endedReason, artifact, call: { id: 'c1' } })?.customerSpoke;
  const bot = { role: 'bot', message: 'Are you there?' };

  test.each<[string, object, boolean | undefined]>([
    ['a line of the user', { messages: [bot, { role: 'user', message: 'Yes.' }] }, true],
    ['lines of the assistant alone', { messages: [{ role: 'system', message: 'Be kind.' }, bot] }, false],
    ['an empty line of the user', { messages: [bot, { role: 'user', message: ' ' }] }, false],
    ['a transcript with a line of the user', { transcript: 'AI: Hello?\nUser: Yes.\n' }, true],
    ['a transcript without one', { transcript: 'AI: Hello?\n' }, false],
    ['a transcript in another form', { transcript: 'Hello? Yes.' }, undefined],
    ['no messages', { messages: [] }, undefined],
    ['nothing', {}, undefined],
  ])('when the report has %s, then it says %p', (_what, artifact, expected) => {
    expect(spoke('customer-ended-call', artifact)).toBe(expected);
  });

  test('when Vapi itself says that nobody spoke and there are no messages, then nobody did', () => {
    expect([spoke('silence-timed-out', { messages: [] }), spoke('silence-timed-out', {})]).toEqual([false, undefined]);
  });
});
