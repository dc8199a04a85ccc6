/** Who may have signed a Kapso webhook, and about whose number it may report. */
import { ApiError, RETRY_AFTER } from '../http/errors';
import type { Sender, Verdict } from '../http/webhook-ingress';
import { fromRecord } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import type { KapsoEvent } from '../providers/kapso/events';
import { namedNumbers } from '../providers/kapso/named-numbers';
import { isSigned } from '../providers/kapso/signature';
import type { KnownWorkspace, WorkspaceDirectory, Workspaces } from '../record/workspace-directory';

export interface SenderOptions {
  /** `KAPSO_WEBHOOK_SECRET`. */
  secrets: readonly string[];
  directory: WorkspaceDirectory;
  logger: Logger;
}

/** A signature that fails is verified again with secrets read from the database, if the known ones are older than this. */
const RECHECK_AFTER_MS = 1_000;
/** Timeout of that query. */
const RECHECK_TIMEOUT_MS = 1_500;
/** Maximum number of secrets tried for a body that names no number. */
const MOST_SECRETS = 20;

/**
 * Verifies a body with the environment's secrets, which need no database, then with those of the workspace whose number it names. A newly
 * stored secret works at once.
 * @throws ApiError 503 if the secrets cannot be read, so that the sender tries again
 */
export async function senderOf(rawBody: Buffer, signatures: readonly Buffer[], options: SenderOptions): Promise<Verdict> {
  const { secrets, directory, logger } = options;
  if (isSignedWith(rawBody, signatures, secrets)) return true;
  const numbers = namedNumbers(rawBody);
  const known = directory.peek();
  const sender = known && signerIn(known, numbers, rawBody, signatures);
  if (sender) return sender;
  const current = await fromRecord(directory.current(RECHECK_AFTER_MS), RECHECK_TIMEOUT_MS).catch((error: unknown) => {
    if (known) return known;
    logger.warn({ error }, 'a webhook could not be verified, because the secrets of the workspaces could not be read');
    throw notVerified();
  });
  const found = current === known ? undefined : signerIn(current, numbers, rawBody, signatures);
  if (found) return found;
  // With the right key it may be authentic.
  if (candidates(current, numbers).some(({ credentials }) => credentials.kapsoWebhookSecrets === null)) throw notVerified();
  return false;
}

function notVerified(): ApiError {
  return new ApiError(503, 'the signature could not be checked; please send it again', RETRY_AFTER);
}

function isSignedWith(rawBody: Buffer, signatures: readonly Buffer[], secrets: readonly string[]): boolean {
  return signatures.some((signature) => isSigned(rawBody, signature, secrets));
}

function signerIn(known: Workspaces, numbers: readonly string[], rawBody: Buffer, signatures: readonly Buffer[]): Sender | undefined {
  let tried = 0;
  for (const { id, credentials } of candidates(known, numbers)) {
    const secrets = credentials.kapsoWebhookSecrets ?? [];
    tried += secrets.length;
    if (tried > MOST_SECRETS) return undefined;
    if (isSignedWith(rawBody, signatures, secrets)) return { workspaceId: id };
  }
  return undefined;
}

/** The workspaces with the numbers; for a body that names none, all that have secrets of their own. */
function candidates({ byId, byKapsoNumber }: Workspaces, numbers: readonly string[]): KnownWorkspace[] {
  if (numbers.length > 0) return numbers.flatMap((number) => byKapsoNumber.get(number) ?? []);
  return [...byId.values()].filter(({ credentials }) => credentials.kapsoWebhookSecrets !== undefined);
}

/**
 * The events as their sender may report them: the secret of a workspace proves events of its own number only, and gives its number to those
 * that name none. The environment's secret proves events of every number, except that of a simulated customer for a real number.
 * @throws ApiError 401 if one is about another workspace's number
 */
export function ownEvents(events: readonly KapsoEvent[], sender: Sender | undefined, { secrets, directory }: SenderOptions): KapsoEvent[] {
  const known = directory.peek();
  if (sender === undefined) {
    const refused = events.some((event) => {
      const workspace = numberOf(event) === undefined ? undefined : known?.byKapsoNumber.get(numberOf(event) ?? '');
      return workspace !== undefined && !workspace.settings.KAPSO_WEBHOOK_SECRET.some((secret) => secrets.includes(secret));
    });
    if (refused) throw new ApiError(401, 'the signature is not that of the number');
    return [...events];
  }
  const number = known?.byId.get(sender.workspaceId)?.kapsoPhoneNumberId ?? undefined;
  if (number === undefined) throw new ApiError(401, 'the workspace of the signature has no number');
  return events.map((event) => {
    if (event.type === 'skipped') return event;
    if ((event.phoneNumberId ?? number) !== number) throw new ApiError(401, 'the signature is that of another number');
    return { ...event, phoneNumberId: number };
  });
}

function numberOf(event: KapsoEvent): string | undefined {
  return event.type === 'skipped' ? undefined : event.phoneNumberId;
}
