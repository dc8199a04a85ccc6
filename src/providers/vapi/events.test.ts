import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readSettings } from '../../platform/config';
import { answerVapi } from './answers';
import { QUESTION_TYPES, type QuestionMessage, readVapiBody } from './events';

const FIXTURES = join(__dirname, '../../../test/fixtures/vapi');
const fixture = (name: string) => readFileSync(join(FIXTURES, `${name}.json`));
const read = (body: unknown) => readVapiBody(Buffer.from(JSON.stringify(body)));
const question = (name: string) => readVapiBody(fixture(name)) as QuestionMessage;
const CALL = '0199aaaa-0000-7000-8000-000000000001';

describe('webhook bodies', () => {
  const webhooks = readdirSync(FIXTURES).filter((file) => 'message' in JSON.parse(readFileSync(join(FIXTURES, file), 'utf8')));

  test.each(webhooks.filter((file) => !/^error|response/.test(file)))('when %s is parsed, then its kind matches its name', (file) => {
    const message = readVapiBody(readFileSync(join(FIXTURES, file)));
    if (/^(status-update|end-of-call-report)/.test(file)) expect(message.kind).toBe('fact');
    else if (/request|^tool-calls/.test(file)) expect(message.kind).toBe('question');
    else expect(message).toMatchObject({ kind: 'skipped', reason: 'not_used' });
  });

  test('when a report is parsed, then the fact includes the report; when a status is parsed, then it does not', () => {
    expect(readVapiBody(fixture('end-of-call-report.busy'))).toMatchObject({
      event: { type: 'end-of-call-report', endedReason: 'customer-busy' },
      report: { endedReason: 'customer-busy', isEnded: true },
    });
    const update = readVapiBody(fixture('status-update.ended.future-reason'));
    expect(update).toMatchObject({ kind: 'fact', event: { type: 'status-update', status: 'ended' } });
    expect(update).not.toHaveProperty('report');
  });

  test('when the timestamp is missing or invalid, then the current time is used; ISO and text timestamps are parsed', () => {
    const at = (timestamp?: unknown) => read({ message: { type: 'status-update', status: 'ringing', call: { id: 'c' }, timestamp } });
    const startedMs = Date.now();
    for (const timestamp of [undefined, null, 'soon', -1, {}]) {
      const message = at(timestamp);
      expect(message.kind === 'fact' && message.event.atMs).toBeGreaterThanOrEqual(startedMs);
    }
    expect(at('2026-11-20T15:00:00.000Z')).toMatchObject({ event: { atMs: 1795186800000 } });
    expect(at('1795186800000')).toMatchObject({ event: { atMs: 1795186800000 } });
  });

  test.each([
    [{ type: 'status-update', status: 'ringing' }, 'no_call'],
    [{ type: 'end-of-call-report' }, 'no_call'],
    [{ type: 'transcript[transcriptType="final"]', call: { id: 'c' } }, 'not_used'],
    [{ type: 'call.deleted' }, 'not_used'],
  ])('when the message is %j, then it is skipped as %s', (message, reason) => {
    expect(read({ message })).toMatchObject({ kind: 'skipped', reason });
  });

  test.each([
    { type: 'end-of-call-report', call: {} },
    { type: 'status-update', call: { id: 'c' } },
    { type: 'a sentence with +15555550123 in it' },
    { type: 7 },
    null,
  ])('when the message is %j, then it is unreadable, and the reason quotes nothing of it', (message) => {
    expect(read({ message })).toMatchObject({ kind: 'unreadable', reason: 'unreadable', detail: expect.not.stringContaining('555') });
  });

  test.each([null, [], 'x', 7, {}, { message: [] }])('when the body is %j, then it is unreadable and nothing is thrown', (body) => {
    expect(read(body)).toMatchObject({ kind: 'unreadable', reason: 'unreadable' });
  });

  test('when the body is not JSON, then it is unreadable and nothing is thrown', () => {
    expect(readVapiBody(Buffer.from('{"message":'))).toMatchObject({ kind: 'unreadable', reason: 'not_json', type: 'unknown' });
  });
});

describe('responses', () => {
  const settings = readSettings({});
  const offering = readSettings({
    VAPI_ASSISTANT_ID: 'outbound-1',
    VAPI_INBOUND_ASSISTANT_ID: 'inbound-1',
    VAPI_TRANSFER_NUMBER: '+15555550177',
  });
  const body = (name: string, by = settings) => {
    const answer = answerVapi(question(name), by);
    return answer.kind === 'json' ? answer.body : undefined;
  };

  test.each(['tool-calls', 'tool-calls.object-arguments', 'tool-calls.docs-page-shape'])(
    'when %s arrives, then each tool is declined by name and id',
    (name) => {
      expect(body(name)).toEqual({ results: [{ name: 'bookSlot', toolCallId: 'call_FAKE01', error: 'This tool is not available.' }] });
    },
  );

  test('when tools come only wrapped, or in the oldest format, then they are still found', () => {
    const responseTo = (fields: object) => answerVapi(read({ message: { call: { id: 'c' }, ...fields } }) as QuestionMessage, settings);
    const declined = { name: 't', error: 'This tool is not available.' };
    expect(responseTo({ type: 'tool-calls', toolWithToolCallList: [{ name: 't', toolCall: { id: '1' } }] })).toMatchObject({
      body: { results: [{ ...declined, toolCallId: '1' }] },
    });
    expect(responseTo({ type: 'function-call', functionCall: { name: 't', parameters: {} } })).toMatchObject({
      body: { results: [declined] },
    });
    expect(responseTo({ type: 'tool-calls', toolCallList: 'x' })).toMatchObject({ body: { results: [] } });
  });

  test('when an assistant is requested, then it is the inbound one, else the default one, else an error to speak', () => {
    expect(body('assistant-request', offering)).toEqual({ assistantId: 'inbound-1' });
    expect(body('assistant-request', readSettings({ VAPI_ASSISTANT_ID: 'outbound-1' }))).toEqual({ assistantId: 'outbound-1' });
    expect(body('assistant-request')).toEqual({ error: expect.any(String) });
  });

  test('when a transfer is requested, then the response is the number in the documented format, or an error', () => {
    const { destination } = JSON.parse(fixture('transfer-destination-request.response').toString());
    expect(body('transfer-destination-request', offering)).toEqual({ destination });
    expect(body('transfer-destination-request')).toEqual({ error: expect.any(String) });
  });

  test('when knowledge is requested, then there are no documents', () => {
    expect(body('knowledge-base-request')).toEqual({ documents: [] });
    expect(question('knowledge-base-request').providerCallId).toBe(CALL);
  });

  test.each(QUESTION_TYPES)('when %s comes without any other field, then there is still a response', (type) => {
    const answer = answerVapi(read({ message: { type } }) as QuestionMessage, settings);
    if (type === 'voice-request') expect(answer).toEqual({ kind: 'silence' });
    else expect(answer).toEqual({ kind: 'json', body: expect.any(Object) });
  });
});
