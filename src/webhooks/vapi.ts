/**
 * Vapi's webhook: verify, read, store, signal the call's workflow, respond. Vapi repeats an event only if its server settings have a
 * backoff plan. So a 200 means that the fact is in the database and its workflow was signalled, or that it is a dead letter; any other
 * response asks Vapi to send it again.
 */
import { WorkflowExecutionAlreadyStartedError } from '@temporalio/client';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import {
  CALL_WORKFLOW,
  CALLBACK_WORKFLOW,
  type CallEvent,
  type CallReported,
  type CallTimings,
  callbackUpdateStart,
  callInput,
  callReported,
  callStart,
  statusRank,
} from '../../workflows/contract';
import { ApiError, logged, RETRY_AFTER, webhookProblems } from '../http/errors';
import {
  jsonResponse,
  type ReceivedWebhook,
  type Sender,
  type Webhook,
  type WebhookNote,
  type WebhookResponse,
} from '../http/webhook-ingress';
import type { Settings } from '../platform/config';
import type { Database } from '../platform/database';
import { fromRecord, isDatabaseAway, isRefused } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import { answerVapi, type VapiAnswerSettings } from '../providers/vapi/answers';
import { VAPI_WEBHOOK_PATH } from '../providers/vapi/client';
import {
  type FactMessage,
  KNOWN_TYPES,
  type QuestionMessage,
  readVapiBody,
  type SkippedMessage,
  type UnreadableMessage,
  type VapiMessage,
} from '../providers/vapi/events';
import { withoutSecretFields } from '../providers/vapi/report';
import type { VapiAuthSettings } from '../providers/vapi/signature';
import { type CallRow, findCallRow, keepCallEvent } from '../record/call-events';
import { keepCallReport } from '../record/call-reports';
import type { WebhookLetter } from '../record/dead-letters';
import type { WorkspaceDirectory } from '../record/workspace-directory';
import { type HandOverDependencies, handOver, levelOf, NotStartedError, unstoredResult } from './hand-over';
import { keepForLater, lateBody } from './late-events';
import { signalDeadlineMs } from './signaller';
import { vapiSenderOf } from './vapi-senders';

/** A report holds the same conversation three or four times (Vapi's end-of-call-report). */
const BODY_LIMIT_MIB = 12;

/** Timeout of the database writes of a webhook; Vapi waits 20 s by default. */
const RECORD_TIMEOUT_MS = 1_500;

export interface VapiWebhookOptions {
  settings: VapiAuthSettings & VapiAnswerSettings & CallTimings & Pick<Settings, 'DEBUG_WEBHOOK'>;
  logger: Logger;
  directory: WorkspaceDirectory;
  /** Undefined until startup is complete. */
  handOverDependencies(): HandOverDependencies | undefined;
}

const proofHeaders = z.object({
  'X-Vapi-Secret': z.string().optional().meta({ description: 'VAPI_WEBHOOK_AUTH=secret.' }),
  Authorization: z.string().optional().meta({ description: 'VAPI_WEBHOOK_AUTH=bearer: `Bearer` and a secret.' }),
  'x-signature': z
    .string()
    .optional()
    .meta({ description: 'VAPI_WEBHOOK_AUTH=hmac: signature of `{timestamp}.{body}`; configurable (VAPI_HMAC_*).' }),
  'x-timestamp': z.string().optional(),
});

/** The webhook in the OpenAPI document. */
export const vapiPaths: ZodOpenApiPathsObject = {
  [VAPI_WEBHOOK_PATH]: {
    post: {
      tags: ['Webhooks'],
      summary: "Vapi's webhook",
      operationId: 'takeVapiWebhook',
      requestParams: { header: proofHeaders },
      requestBody: {
        description: 'Any server message from Vapi. An authentic one is never rejected for its content.',
        content: { 'application/json': { schema: z.looseObject({}) } },
      },
      responses: {
        200: {
          description: "Stored, or ignored as irrelevant; for a request that expects data, the data in Vapi's format.",
          content: { 'application/json': { schema: z.looseObject({}) }, 'application/octet-stream': {} },
        },
        ...webhookProblems('Missing or invalid authentication, or no secret is configured.', BODY_LIMIT_MIB),
      },
    },
  },
};

/** Vapi's webhook. */
export function vapiWebhook(options: VapiWebhookOptions): Webhook {
  return {
    ...{ source: 'vapi', paths: [VAPI_WEBHOOK_PATH], bodyLimitMib: BODY_LIMIT_MIB, refusal: refusalOf(options) },
    proofOf: (headers) => vapiSenderOf(headers, options),
    take: (webhook) => takeWebhook(webhook, options),
  };
}

function refusalOf({ settings }: VapiWebhookOptions): string {
  const isConfigured = settings.VAPI_WEBHOOK_SECRET.length > 0;
  return isConfigured ? 'bad or missing authentication' : 'voice calls are not configured (VAPI_WEBHOOK_SECRET)';
}

const RECEIVED: WebhookResponse = jsonResponse({ received: true });

async function takeWebhook(webhook: ReceivedWebhook, options: VapiWebhookOptions): Promise<WebhookResponse> {
  const message = readVapiBody(webhook.rawBody);
  webhook.note(noteOf(message));
  switch (message.kind) {
    case 'fact':
      return await takeFact(message, webhook, options);
    case 'question':
      return answer(message, webhook.sender, options);
    case 'skipped':
      reportSkipped(message, options);
      return RECEIVED;
    case 'unreadable':
      return await keepUnreadable(message, webhook, options);
  }
}

function noteOf(message: VapiMessage): WebhookNote {
  if (message.kind === 'fact') return { type: message.event.type };
  if (message.kind === 'question') return { type: message.type };
  const type = KNOWN_TYPES.has(message.type) ? message.type : 'other';
  return { type, result: message.kind };
}

function reportSkipped({ type, reason, providerCallId, shape }: SkippedMessage, { settings, logger }: VapiWebhookOptions): void {
  logger.debug({ type, reason, providerCallId, ...(settings.DEBUG_WEBHOOK ? { shape } : {}) }, 'Vapi webhook ignored');
}

async function keepUnreadable(message: UnreadableMessage, webhook: ReceivedWebhook, options: VapiWebhookOptions): Promise<WebhookResponse> {
  const { type, reason, detail, providerCallId, shape } = message;
  const { settings, logger } = options;
  logger.error({ type, reason, providerCallId, ...(settings.DEBUG_WEBHOOK ? { shape } : {}) }, 'authentic Vapi webhook could not be read');
  await keepLetter({ source: 'vapi', reason, detail, body: letterBody(webhook.rawBody) }, webhook, options);
  return RECEIVED;
}

/** @throws ApiError 503 if it is not stored */
async function keepLetter(letter: WebhookLetter, { note, sender }: ReceivedWebhook, options: VapiWebhookOptions): Promise<void> {
  try {
    const dependencies = options.handOverDependencies();
    if (!dependencies) throw new NotStartedError();
    await handOver({ messages: [], statuses: [], letters: [{ ...letter, ...sender }] }, dependencies);
  } catch (error) {
    note({ result: unstoredResult(error) });
    const id = logged(options.logger, error, 'dead letter not stored; asking Vapi to send the webhook again', levelOf(error));
    throw new ApiError(503, 'not stored; please send it again', RETRY_AFTER, id);
  }
}

/** The body without the secrets that Vapi's bodies contain; the raw bytes if it is not JSON. */
function letterBody(rawBody: Buffer): unknown {
  try {
    return withoutSecretFields(JSON.parse(rawBody.toString('utf8')));
  } catch {
    return rawBody;
  }
}

function answer(question: QuestionMessage, sender: Sender | undefined, options: VapiWebhookOptions): WebhookResponse {
  const { directory, logger } = options;
  const { type, providerCallId } = question;
  const workspace = sender && directory.peek()?.byId.get(sender.workspaceId);
  const given = answerVapi(question, workspace?.settings ?? options.settings);
  const isOffered = given.kind === 'json' && ('assistantId' in given.body || 'destination' in given.body);
  if (isOffered) logger.info({ type, providerCallId }, 'responded to a request from Vapi');
  else logger.warn({ type, providerCallId }, 'Vapi requested something that is not configured here');
  return given.kind === 'silence' ? { contentType: 'application/octet-stream', body: '' } : jsonResponse(given.body);
}

async function takeFact(message: FactMessage, webhook: ReceivedWebhook, options: VapiWebhookOptions): Promise<WebhookResponse> {
  const { type, status, providerCallId } = message.event;
  const logger = options.logger.child({ providerCallId, type, ...(status === undefined ? {} : { status }) });
  try {
    const dependencies = options.handOverDependencies();
    if (!dependencies) throw new NotStartedError();
    const callId = await handOverFact(message, options.settings, dependencies, webhook.sender);
    return { ...RECEIVED, afterwards: () => logger.info({ callId }, 'call event stored') };
  } catch (error) {
    if (error instanceof ForeignCallError) throw new ApiError(401, error.message);
    if (isRefused(error)) return await keepRefused(error, webhook, { ...options, logger });
    if (isDatabaseAway(error) && (await isKeptForLater(webhook, { ...options, logger }))) return RECEIVED;
    webhook.note({ result: unstoredResult(error) });
    const id = logged(logger, error, 'call event not stored; asking Vapi to send it again', levelOf(error));
    throw new ApiError(503, 'not stored; please send it again', RETRY_AFTER, id);
  }
}

/** Whether Temporal keeps the event while the database is away. */
async function isKeptForLater(
  { rawBody, sender }: ReceivedWebhook,
  { handOverDependencies, logger }: VapiWebhookOptions,
): Promise<boolean> {
  const dependencies = handOverDependencies();
  if (!dependencies) return false;
  try {
    await keepForLater({ source: 'vapi', body: lateBody(letterBody(rawBody)), ...sender }, dependencies);
    logger.warn('the database is away; Temporal keeps the call event');
    return true;
  } catch (error) {
    logger.error({ error }, 'Temporal did not accept a call event that the database did not accept');
    return false;
  }
}

/** If Vapi sent it again, it would be rejected again. */
async function keepRefused(error: unknown, webhook: ReceivedWebhook, options: VapiWebhookOptions): Promise<WebhookResponse> {
  options.logger.error({ error }, 'the database rejected a call event');
  const detail = 'The database rejected a report about a call; its error is in the log.';
  await keepLetter({ source: 'vapi', reason: 'record_refused', detail, body: letterBody(webhook.rawBody) }, webhook, options);
  return RECEIVED;
}

/**
 * Stores the fact, then signals the workflow, or for a finished call that has improved, starts the callback's update. Duplicates are handed
 * over again, in case the first attempt was lost with its process; known facts change nothing. Returns our id of the call.
 * @throws DatabaseAwayError if the database is slow, or an error of the database or Temporal; ForeignCallError if the call belongs to
 * another workspace than the sender
 */
export async function handOverFact(
  { event, report }: FactMessage,
  settings: CallTimings,
  dependencies: HandOverDependencies,
  sender?: Sender,
): Promise<string> {
  const { db, identity, signaller, taskQueue } = dependencies;
  const keep = async () => {
    if (sender) await refuseForeignCall(db, event, sender);
    const kept = await keepCallEvent(db, event, identity.callId({ providerCallId: event.providerCallId }), sender?.workspaceId);
    return { ...kept, report: report && !kept.isFormer ? await keepCallReport(db, kept.row.callId, report) : undefined };
  };
  const { row, isFormer, report: kept } = await fromRecord(keep(), RECORD_TIMEOUT_MS);
  if (kept?.owesUpdate) await signaller.startOnce(CALLBACK_WORKFLOW, callbackUpdateStart(kept.callId, taskQueue), signalDeadlineMs());
  // No workflow follows an abandoned placement or a finished call.
  if (isFormer || row.doneAt !== null || isNoNews(event, row)) return row.callId;
  const { providerCallId, type, status, endedReason, atMs } = event;
  const fact: CallReported = {
    providerCallId,
    type,
    ...(status === undefined ? {} : { status }),
    ...(endedReason === undefined ? {} : { endedReason }),
    atMs,
  };
  await tellWorkflow(row, fact, settings, dependencies);
  return row.callId;
}

/** The secret of a workspace proves events of its own calls only. */
export class ForeignCallError extends Error {
  override name = 'ForeignCallError';
}

async function refuseForeignCall(db: Database, event: CallEvent, { workspaceId }: Sender): Promise<void> {
  const row = await findCallRow(db, event);
  if (row && row.workspaceId !== workspaceId) throw new ForeignCallError('the secret is that of another workspace than the call');
}

/**
 * Whether the fact changes nothing in the workflow of a call that Parley placed. That workflow waits for an answer from the start, and
 * finds Vapi's id in the row. Not signalling saves an action.
 */
function isNoNews({ type, status = '' }: CallEvent, { isOwn, status: current }: CallRow): boolean {
  const rank = statusRank(status);
  return isOwn && type === 'status-update' && (rank < statusRank('in-progress') || rank < statusRank(current));
}

async function tellWorkflow(
  row: CallRow,
  fact: CallReported,
  settings: CallTimings,
  { signaller, taskQueue, logger }: HandOverDependencies,
): Promise<void> {
  const input = callInput({ id: row.callId, maxDurationSeconds: row.maxDurationSeconds }, settings, { dials: false, queueForMs: 0 });
  try {
    const start = callStart(input, taskQueue);
    await signaller.tell({ workflowType: CALL_WORKFLOW, start, signal: callReported, fact }, signalDeadlineMs());
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
    logger.debug({ callId: row.callId }, 'the workflow of the call has closed; the fact is in the database');
  }
}
