/**
 * Encryption of secrets in the database: AES-256-GCM (NIST SP 800-38D) with a random nonce. The first key encrypts; all of them decrypt, so
 * that keys can be rotated. What a value belongs to is authenticated with it, so that it cannot be moved to another row.
 */
import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto';

/** The keys of `ENCRYPTION_KEY`: 32 bytes each. Empty: nothing can be encrypted. */
export type EncryptionKeys = readonly Buffer[];

/** A value cannot be encrypted or decrypted with the keys at hand. The message says what to do, and contains no secret. */
export class EncryptionKeyError extends Error {
  override name = 'EncryptionKeyError';
}

const CIPHER = 'aes-256-gcm';
const FORMAT = 'v1';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** Identifies a key in what it has encrypted: the first 8 hex digits of its SHA-256. */
export function encryptionKeyId(key: Buffer): string {
  return createHash('sha256').update(key).digest('hex').slice(0, 8);
}

/**
 * Encrypts a text with the first key. `owner`: what it belongs to, such as a workspace and a field; needed again to decrypt.
 * Returns `v1.<key id>.<nonce, ciphertext and tag in base64url>`.
 * @throws EncryptionKeyError without a key
 */
export function encrypt(text: string, owner: readonly string[], keys: EncryptionKeys): string {
  const [key] = keys;
  if (key === undefined) throw new EncryptionKeyError('ENCRYPTION_KEY is not set; credentials can only be stored encrypted');
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES }).setAAD(additionalData(owner));
  const sealed = Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]);
  return [FORMAT, encryptionKeyId(key), sealed.toString('base64url')].join('.');
}

/** Decrypts what `encrypt` returned. @throws EncryptionKeyError if its key is missing, or if it was changed or belongs to something else */
export function decrypt(encrypted: string, owner: readonly string[], keys: EncryptionKeys): string {
  const [format, keyId, body = ''] = encrypted.split('.');
  if (format !== FORMAT) throw new EncryptionKeyError('an encrypted value has an unknown format');
  const key = keys.find((each) => encryptionKeyId(each) === keyId);
  if (key === undefined) {
    const lack = keys.length === 0 ? 'ENCRYPTION_KEY is not set' : `no key of ENCRYPTION_KEY has the id ${keyId}`;
    throw new EncryptionKeyError(`${lack}; add the key that encrypted the stored credentials`);
  }
  const sealed = Buffer.from(body, 'base64url');
  try {
    const decipher = createDecipheriv(CIPHER, key, sealed.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES })
      .setAAD(additionalData(owner))
      .setAuthTag(sealed.subarray(-TAG_BYTES));
    return Buffer.concat([decipher.update(sealed.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()]).toString('utf8');
  } catch {
    throw new EncryptionKeyError('an encrypted value was changed, or belongs to another row');
  }
}

function additionalData(owner: readonly string[]): Buffer {
  return Buffer.from(JSON.stringify(owner));
}
