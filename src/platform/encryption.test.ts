import { randomBytes } from 'node:crypto';
import { decrypt, EncryptionKeyError, encrypt, encryptionKeyId } from './encryption';

const [older, newer] = [randomBytes(32), randomBytes(32)];
const owner = ['workspace-1', 'kapsoApiKey'];
const secret = 'a secret: ключ 🔑';

test('when a text is encrypted, then its owner can decrypt it, and it is not in the result', () => {
  const encrypted = encrypt(secret, owner, [newer]);
  expect(encrypted).toMatch(new RegExp(`^v1\\.${encryptionKeyId(newer)}\\.[A-Za-z0-9_-]+$`));
  expect(Buffer.from(encrypted.split('.')[2] ?? '', 'base64url').toString()).not.toContain('secret');
  expect(decrypt(encrypted, owner, [newer])).toBe(secret);
  expect(encrypt(secret, owner, [newer])).not.toBe(encrypted);
});

test('when the key is rotated, then old values can be read as long as the old key is listed', () => {
  const encrypted = encrypt(secret, owner, [older]);
  expect(decrypt(encrypted, owner, [newer, older])).toBe(secret);
  expect(encrypt(secret, owner, [newer, older])).toContain(`v1.${encryptionKeyId(newer)}.`);
  expect(() => decrypt(encrypted, owner, [newer])).toThrow(`no key of ENCRYPTION_KEY has the id ${encryptionKeyId(older)}`);
});

test.each([
  ['another workspace', ['workspace-2', 'kapsoApiKey']],
  ['another field', ['workspace-1', 'vapiApiKey']],
  ['other parts of the same text', ['workspace-1","kapsoApiKey']],
])('when a value is moved to %s, then it cannot be decrypted', (_where, other) => {
  expect(() => decrypt(encrypt(secret, owner, [newer]), other, [newer])).toThrow('belongs to another row');
});

test('when a value was changed anywhere, then it cannot be decrypted', () => {
  const [format, id, body = ''] = encrypt(secret, owner, [newer]).split('.');
  const bytes = Buffer.from(body, 'base64url');
  for (let at = 0; at < bytes.length; at += 1) {
    const changed = Buffer.from(bytes);
    changed[at] = (changed[at] ?? 0) ^ 1;
    expect(() => decrypt([format, id, changed.toString('base64url')].join('.'), owner, [newer])).toThrow(EncryptionKeyError);
  }
  for (const short of ['', 'AAAA', bytes.subarray(0, 20).toString('base64url')])
    expect(() => decrypt([format, id, short].join('.'), owner, [newer])).toThrow(EncryptionKeyError);
  expect(() => decrypt('v2.x.y', owner, [newer])).toThrow('unknown format');
});

test('when no key is set, then the error says what to set, and does not contain the text', () => {
  expect(() => encrypt(secret, owner, [])).toThrow(/^ENCRYPTION_KEY is not set/);
  expect(() => decrypt(encrypt(secret, owner, [newer]), owner, [])).toThrow(/^ENCRYPTION_KEY is not set; add the key/);
});
