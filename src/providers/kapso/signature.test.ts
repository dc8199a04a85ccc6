import { createHmac } from 'node:crypto';
import vectors from '../../../test/fixtures/kapso/signature_vectors.json';
import { isSigned } from './signature';

describe('webhook signature', () => {
  test.each(vectors.vectors.map((vector) => [vector.name, vector] as const))(
    'when the vector "%s" is checked, then the answer is the published one',
    (_name, vector) => {
      expect(isSigned(Buffer.from(vector.body), vector.signature, [vectors.secret])).toBe(vector.valid);
    },
  );

  const body = Buffer.from('{"a":1}');
  const signed = (secret: string) => createHmac('sha256', secret).update(body).digest('hex');

  test('when secrets are rotated, then each of them is accepted and no other', () => {
    expect(isSigned(body, signed('old'), ['new', 'old'])).toBe(true);
    expect(isSigned(body, signed('new'), ['new', 'old'])).toBe(true);
    expect(isSigned(body, signed('other'), ['new', 'old'])).toBe(false);
  });

  test('when there is no secret, no signature or no hex, then it is refused', () => {
    expect(isSigned(body, signed(''), [])).toBe(false);
    expect(isSigned(body, undefined, ['s'])).toBe(false);
    expect(isSigned(body, `${signed('s')}00`, ['s'])).toBe(false);
    expect(isSigned(body, signed('s').slice(2), ['s'])).toBe(false);
    expect(isSigned(body, 'sha256=', ['s'])).toBe(false);
  });

  test('when hex is in capitals, then it is accepted', () => {
    expect(isSigned(body, signed('s').toUpperCase(), ['s'])).toBe(true);
  });
});
