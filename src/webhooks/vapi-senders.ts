/** Who may have sent a Vapi webhook: the environment's Vapi organisation, or that of a workspace. */
import type { IncomingHttpHeaders } from 'node:http';
import { ApiError, RETRY_AFTER } from '../http/errors';
import type { Proof, Sender } from '../http/webhook-ingress';
import { fromRecord } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import { givenSecret, type VapiAuthSettings, vapiProof } from '../providers/vapi/signature';
import type { WorkspaceDirectory, Workspaces } from '../record/workspace-directory';

export interface VapiSenderOptions {
  settings: VapiAuthSettings;
  directory: WorkspaceDirectory;
  logger: Logger;
}

/** As for Kapso (./kapso-senders.ts). */
const RECHECK_AFTER_MS = 1_000;
const RECHECK_TIMEOUT_MS = 1_500;
/** Maximum number of workspaces whose HMAC is tried for one body. */
const MOST_SIGNERS = 20;

/**
 * The environment's secrets decide first, without the database. A secret in a header names its workspace; an HMAC is tried with the
 * workspaces that have secrets of their own. A secret that is not known is looked up at most once a second.
 */
export function vapiSenderOf(headers: IncomingHttpHeaders, options: VapiSenderOptions): Proof {
  const { settings, directory } = options;
  const proof = vapiProof(headers, settings);
  if (proof === true) return true;
  // Without a secret or a signature in the headers, no body can help.
  if (proof === false && !mayProve(headers, settings)) return false;
  const known = directory.peek();
  const found = known && provenBy(headers, known, settings);
  if (typeof found === 'object') return found;
  const isFresh = known !== undefined && performance.now() - known.readAtMs < RECHECK_AFTER_MS;
  if (isFresh && proof === false && found === false && !hasUnreadable(known)) return false;
  return async (rawBody) => {
    if (typeof proof === 'function' && proof(rawBody)) return true;
    const early = found ? found(rawBody) : false;
    if (early) return early;
    const current = isFresh ? known : await renewed(known, options);
    const late = current === known ? false : provenBy(headers, current, settings);
    const verdict = typeof late === 'function' ? late(rawBody) : late;
    // With the right key it may be authentic.
    if (verdict === false && hasUnreadable(current)) throw notVerified();
    return verdict;
  };
}

async function renewed(known: Workspaces | undefined, { directory, logger }: VapiSenderOptions): Promise<Workspaces> {
  try {
    return await fromRecord(directory.current(RECHECK_AFTER_MS), RECHECK_TIMEOUT_MS);
  } catch (error) {
    if (known) return known;
    logger.warn({ error }, 'a webhook of Vapi could not be verified, because the secrets of the workspaces could not be read');
    throw notVerified();
  }
}

function notVerified(): ApiError {
  return new ApiError(503, 'the sender could not be checked; please send it again', RETRY_AFTER);
}

function mayProve(headers: IncomingHttpHeaders, settings: VapiAuthSettings): boolean {
  return givenSecret(headers, settings) !== undefined || vapiProof(headers, { ...settings, VAPI_WEBHOOK_SECRET: ['any'] }) !== false;
}

function hasUnreadable({ byId }: Workspaces): boolean {
  return [...byId.values()].some(({ credentials }) => credentials.vapiWebhookSecrets === null);
}

function provenBy(
  headers: IncomingHttpHeaders,
  { byId }: Workspaces,
  settings: VapiAuthSettings,
): false | Sender | ((rawBody: Buffer) => false | Sender) {
  const proofs: { sender: Sender; proof: (rawBody: Buffer) => boolean }[] = [];
  for (const { id, credentials } of byId.values()) {
    if (!credentials.vapiWebhookSecrets || proofs.length >= MOST_SIGNERS) continue;
    const sender = { workspaceId: id };
    const proof = vapiProof(headers, { ...settings, VAPI_WEBHOOK_SECRET: [...credentials.vapiWebhookSecrets] });
    if (proof === true) return sender;
    if (proof !== false) proofs.push({ sender, proof });
  }
  if (proofs.length === 0) return false;
  return (rawBody) => proofs.find(({ proof }) => proof(rawBody))?.sender ?? false;
}
