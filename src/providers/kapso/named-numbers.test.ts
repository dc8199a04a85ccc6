import { readdirSync, readFileSync } from 'node:fs';
import { readKapsoBody } from './events';
import { namedNumbers } from './named-numbers';

const FOLDER = 'test/fixtures/kapso';
const webhooks = readdirSync(FOLDER).filter((name) => /^(webhook_|meta_raw_)/.test(name));

test.each(webhooks)('when %s arrives, then every number of its events is found without parsing it', (name) => {
  const body = readFileSync(`${FOLDER}/${name}`);
  const numbers = readKapsoBody(body).flatMap((event) => ('phoneNumberId' in event && event.phoneNumberId ? [event.phoneNumberId] : []));
  expect(namedNumbers(body)).toEqual(expect.arrayContaining(numbers));
});

test.each([
  ['{"phone_number_id":"12"}', ['12']],
  ['{"phone_number_id" : 12}', ['12']],
  ['{"phone_number_id":null,"a":{"phone_number_id":"7"}}', ['null', '7']],
  ['{"phone_number_id":"1","b":{"phone_number_id":"1"},"c":{"phone_number_id":"2"}}', ['1', '2']],
  ['{"text":"\\"phone_number_id\\":\\"9\\""}', []],
  ['{"phone_number_id":{}}', []],
  ['{"phone_number_id"', []],
  ['no JSON', []],
])('when the body is %s, then the numbers are %j', (body, numbers) => {
  expect(namedNumbers(Buffer.from(body))).toEqual(numbers);
});

test('when a body names very many numbers, then three are enough', () => {
  const body = Buffer.from(JSON.stringify(Array.from({ length: 10_000 }, (_, index) => ({ phone_number_id: `${index}` }))));
  expect(namedNumbers(body)).toEqual(['0', '1', '2']);
});
