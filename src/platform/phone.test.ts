import { normalisedPhone } from './phone';

describe('phone numbers', () => {
  test.each([
    ['+4930123456', '+4930123456'],
    ['+49 (30) 123-456', '+4930123456'],
    [' +1 212 555 2368 ', '+12125552368'],
    ['+15550100', '+15550100'],
    ['+12125550142', '+12125550142'],
    ['+551199998888', '+551199998888'],
  ])('when the input is %s, then it is normalised to %s', (input, normalised) => {
    expect(normalisedPhone(input)).toBe(normalised);
  });

  test.each([
    '',
    '+',
    '030123456',
    '004930123456',
    '+1555',
    '+1212555236',
    '+999123456789',
    '+49abc30123',
    '+1 212 555 2368 x9',
    'tel:+49',
  ])('when the input is %p, then it is not a phone number', (input) => {
    expect(normalisedPhone(input)).toBeUndefined();
  });
});
