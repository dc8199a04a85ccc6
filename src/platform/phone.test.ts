import { normalisedPhone, phoneMatchingKey, phoneSpellings, readPhone } from './phone';

describe('phone numbers', () => {
  test.each([
    ['+4930123456', '+4930123456'],
    ['+49 (30) 123-456', '+4930123456'],
    [' +1 212 555 2368 ', '+12125552368'],
    ['+15550100', '+15550100'],
    ['+12125550142', '+12125550142'],
    ['15550100', '+15550100'],
    ['4930123456', '+4930123456'],
    ['5215500000001', '+525500000001'],
    ['52 1 55 0000 0001', '+525500000001'],
    ['004930123456', '+4930123456'],
    ['00 49 30 123456', '+4930123456'],
    ['+49 (0)30 123456', '+4930123456'],
    ['+1 (212) 555\u20132368', '+12125552368'],
    ['\u202a+52\u00a01\u00a055\u00a00000\u00a00001\u202c', '+525500000001'],
    ['\uff0b\uff14\uff19 30 123456', '+4930123456'],
    ['+\u0664\u0669\u0663\u0660\u0661\u0662\u0663\u0664\u0665\u0666', '+4930123456'],
  ])('when the input is %s, then it is normalised to %s', (input, normalised) => {
    expect(normalisedPhone(input)).toBe(normalised);
  });

  test.each([
    ['', /no digits/],
    ['+', /no digits/],
    ['030123456', /no country code/],
    ['(212) 555-2368', /no country code/],
    ['2123456789', /too short/],
    ['+1555', /too short/],
    ['+1212555236', /too short/],
    ['+12125552368999', /too long/],
    ['+999123456789', /country code/],
    ['+49abc30123', /must be a phone number/],
    ['+1 212 555 2368 x9', /must be a phone number/],
    ['++4930123456', /must be a phone number/],
    ['tel:+49', /must be a phone number/],
  ])('when the input is %p, then it is not a phone number, and the problem says why without quoting it', (input, why) => {
    expect(normalisedPhone(input)).toBeUndefined();
    const problem = 'problem' in readPhone(input) ? (readPhone(input) as { problem: string }).problem : '';
    expect(problem).toMatch(why);
    expect(problem.replace('+15550100', '')).not.toMatch(/\d/);
  });

  test.each([
    ['Mexico', '+5215500000001', '+525500000001'],
    ['Mexico', '+52 1 55 0000 0001', '+525500000001'],
    ['Mexico', '+525500000001', '+525500000001'],
    ['Argentina', '+5491123456789', '+5491123456789'],
    ['Argentina', '+541123456789', '+541123456789'],
    ['Argentina', '+54 11 15 2345-6789', '+5491123456789'],
    ['Brazil', '+551199998888', '+5511999998888'],
    ['Brazil', '+5511999998888', '+5511999998888'],
    ['Brazil, a landline', '+551133334444', '+551133334444'],
    ['Benin', '+22995123456', '+2290195123456'],
    ['Benin', '+2290195123456', '+2290195123456'],
  ])('when the input is from %s: %s, then it is normalised to the spelling of the numbering plan: %s', (_country, input, normalised) => {
    expect(normalisedPhone(input)).toBe(normalised);
  });
});

describe('the matching key', () => {
  test.each([
    ['Mexico', ['525500000001', '5215500000001', '+525500000001', '+52 1 55 0000 0001']],
    ['Mexico, a number that begins with 1', ['521234567890', '5211234567890']],
    ['Argentina', ['541123456789', '5491123456789', '+54 9 11 2345-6789']],
    ['Brazil', ['551199998888', '5511999998888', '+55 11 99999-8888']],
    ['Brazil, once registered with eight digits that begin with 6', ['552167778888', '5521967778888']],
    ['Benin', ['22995123456', '2290195123456']],
    ['elsewhere', ['15550100', '+1 555 0100']],
  ])('when one phone of %s is spelled in any way, then the key is the same', (_country, spellings) => {
    expect(new Set(spellings.map(phoneMatchingKey)).size).toBe(1);
    expect(phoneSpellings(spellings[0] ?? '')).toEqual(expect.arrayContaining(spellings.filter((each) => /^\d+$/.test(each))));
  });

  test.each([
    ['two Mexicans', '5215500000001', '5215500000002'],
    ['a Mexican and the number that lacks a digit', '5215500000001', '52155000000'],
    ['two areas of Brazil', '5511999998888', '5521999998888'],
    ['a Brazilian mobile number of the newer range and a landline', '5511933334444', '551133334444'],
    ['a Brazilian mobile number and a landline', '551199998888', '551139998888'],
    ['numbers of Benin that differ in the digit after 01', '2290195123456', '2290296123456'],
    ['an American number that begins like Mexico', '15215500000', '1525500000'],
  ])('when there are %s, then the keys differ', (_what, one, other) => {
    expect(phoneMatchingKey(one)).not.toBe(phoneMatchingKey(other));
  });
});
