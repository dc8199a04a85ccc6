import { createHmac } from 'node:crypto';
import vectors from '../../../test/fixtures/kapso/signature_vectors.json';
import { isSigned, signatureOf, signaturesIn } from './signature';

/** Whether a header with this value vouches for the body. */
function isValid(body: Buffer, header: string | undefined, secrets: string[]): boolean {
  const signature = signatureOf(header);
  return signature !== undefined && isSigned(body, signature, secrets);
}

describe('webhook signature', () => {
  test.each(vectors.vectors.map((vector) => [vector.name, vector] as const))(
    'when the vector "%s" is checked, then the answer is the published one',
    (_name, vector) => {
      expect(isValid(Buffer.from(vector.body), vector.signature, [vectors.secret])).toBe(vector.valid);
    },
  );

  const body = Buffer.from('{"a":1}');
  const signed = (secret: string) => createHmac('sha256', secret).update(body).digest('hex');

  test('when secrets are rotated, then each of them is accepted and no other', () => {
    expect(isValid(body, signed('old'), ['new', 'old'])).toBe(true);
    expect(isValid(body, signed('new'), ['new', 'old'])).toBe(true);
    expect(isValid(body, signed('other'), ['new', 'old'])).toBe(false);
  });

  test('when there is no secret, no signature or no hex, then it is refused', () => {
    expect(isValid(body, signed(''), [])).toBe(false);
    expect(isValid(body, undefined, ['s'])).toBe(false);
    expect(isValid(body, `${signed('s')}00`, ['s'])).toBe(false);
    expect(isValid(body, signed('s').slice(2), ['s'])).toBe(false);
    expect(isValid(body, 'sha256=', ['s'])).toBe(false);
  });

  test('when hex is in upper case, then it is accepted', () => {
    expect(isValid(body, signed('s').toUpperCase(), ['s'])).toBe(true);
  });

  test('when headers have signatures, then valid ones are found in either header', () => {
    const [kapsos, metas] = [signed('a'), signed('b')];
    const found = (headers: Record<string, string>) => signaturesIn(headers).map((signature) => signature.toString('hex'));
    expect(found({ 'x-webhook-signature': kapsos })).toEqual([kapsos]);
    expect(found({ 'x-hub-signature-256': `sha256=${metas}` })).toEqual([metas]);
    expect(found({ 'x-webhook-signature': '', 'x-hub-signature-256': `sha256=${metas}` })).toEqual([metas]);
    expect(found({ 'x-webhook-signature': kapsos, 'x-hub-signature-256': `sha256=${metas}` })).toEqual([kapsos, metas]);
    expect(found({ 'x-webhook-signature': `${kapsos}, ${kapsos}` })).toEqual([]);
    expect(found({})).toEqual([]);
  });
});
