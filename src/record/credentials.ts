/** The secrets of workspaces at their providers, encrypted. */
import { decrypt, type EncryptionKeys, encrypt } from '../platform/encryption';
import type { WorkspaceCredentials } from '../platform/workspace-settings';

/** Each field, and whether it holds several values. */
export const CREDENTIAL_FIELDS = {
  kapsoApiKey: 'one',
  kapsoWebhookSecrets: 'several',
  vapiApiKey: 'one',
  vapiWebhookSecrets: 'several',
  deepseekApiKey: 'one',
  openaiApiKey: 'one',
  anthropicApiKey: 'one',
  grokApiKey: 'one',
} as const satisfies Record<keyof WorkspaceCredentials, 'one' | 'several'>;
export type CredentialField = keyof typeof CREDENTIAL_FIELDS;

/** A stored credential. */
export interface CredentialRow {
  field: string;
  encrypted: string;
}

/** Of a shorter value, the last four characters would say too much. */
const SHORTEST_SHOWN = 12;

/** The row of a field. @throws EncryptionKeyError without a key */
export function encryptCredential(
  workspaceId: string,
  field: CredentialField,
  values: readonly string[],
  keys: EncryptionKeys,
): CredentialRow & { lastFours: string[] } {
  return {
    field,
    encrypted: encrypt(JSON.stringify(values), [workspaceId, field], keys),
    lastFours: values.map((value) => (value.length < SHORTEST_SHOWN ? '' : value.slice(-4))),
  };
}

/** The decrypted credentials, with null for each that cannot be decrypted, and the reason. */
export function decryptCredentials(
  workspaceId: string,
  rows: readonly CredentialRow[],
  keys: EncryptionKeys,
): { credentials: WorkspaceCredentials; problem: string | undefined } {
  const credentials: Record<string, unknown> = {};
  let problem: string | undefined;
  for (const { field, encrypted } of rows) {
    const kind = CREDENTIAL_FIELDS[field as CredentialField];
    // Written by a later version.
    if (kind === undefined) continue;
    try {
      const values = JSON.parse(decrypt(encrypted, [workspaceId, field], keys)) as string[];
      credentials[field] = kind === 'several' ? values : values[0];
    } catch (error) {
      credentials[field] = null;
      problem ??= `${field}: ${(error as Error).message}`;
    }
  }
  return { credentials, problem };
}
