/**
 * Sends the alerts that are stored in the database (src/record/alerts.ts), and checks whether messages are delivered. Runs in
 * every worker; a claim decides which one sends an alert.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Settings } from '../platform/config';
import type { Database } from '../platform/database';
import type { Logger } from '../platform/logger';
import { postAlert } from '../providers/alerts/client';
import type { CallbackAnswer } from '../providers/callback/client';
import type { SendAnswer } from '../providers/kapso/client';
import { sendTemplate } from '../providers/kapso/template';
import { type ClaimedAlert, claimAlert, deleteOldAlerts, doubtAlert, postponeAlert, settleAlert } from '../record/alerts';
import { clearDelivered, reportUndelivered } from '../record/undelivered';

const POLL_MS = 5_000;
const DELIVERY_CHECK_MS = 60_000;
const DELETE_MS = 60 * 60_000;
const KEPT_DAYS = 30;

/** Recommended by Standard Webhooks. Shorter than a claim, even with the time for the database. */
const SEND_TIMEOUT_MS = 15_000;

/** Pause between attempts, in seconds; doubled each time, up to the longest. */
const FIRST_PAUSE_SECONDS = 5;
const LONGEST_PAUSE_SECONDS = 15 * 60;

/** The result of an attempt. `in_doubt`: it may have arrived, and the receiver could not detect a duplicate. */
type Attempt = { kind: 'delivered' } | { kind: 'in_doubt'; reason: string } | { kind: 'failed'; reason: string; retryAfterMs?: number };

interface Channel {
  name: 'webhook' | 'whatsapp';
  send(message: { id: string; text: string }): Promise<Attempt>;
}

interface Parts {
  settings: Settings;
  db: Database;
  logger: Logger;
  signal: AbortSignal;
}

/** Starts the loops, which end with `signal`. */
export function startAlerting(parts: Parts): void {
  const { settings, db, logger } = parts;
  const channels = createChannels(settings);
  // A channel that hangs must not hold back the other one.
  for (const channel of channels) void repeat(parts, POLL_MS, () => sendDue(parts, channel));
  void repeat(parts, DELETE_MS, () => deleteOldAlerts(db, KEPT_DAYS));
  if (settings.UNDELIVERED_AFTER_MINUTES > 0) void repeat(parts, DELIVERY_CHECK_MS, () => checkDeliveries(parts));
  logger.info({ channels: channels.map(({ name }) => name) }, 'alerts go to these channels');
}

/** Repeats the work until `signal` aborts. Failures are logged. */
async function repeat({ logger, signal }: Parts, everyMs: number, work: () => Promise<void>): Promise<void> {
  while (!signal.aborted) {
    try {
      await work();
    } catch (error) {
      if (!signal.aborted) logger.warn({ error }, 'work on alerts failed; trying again');
    }
    await sleep(everyMs, undefined, { signal, ref: false }).catch(() => undefined);
  }
}

function createChannels(settings: Settings): Channel[] {
  const { ALERT_WEBHOOK_URL: url, ALERT_SIGNING_SECRET: signingSecret, ALERT_WEBHOOK_INTERNAL: mayBeInternal } = settings;
  const webhook = url === undefined ? undefined : { url, signingSecret, mayBeInternal, timeoutMs: SEND_TIMEOUT_MS };
  const channels: Channel[] =
    webhook === undefined ? [] : [{ name: 'webhook', send: async (message) => judgePost(await postAlert(webhook, message)) }];
  const owner = ownerOf(settings);
  if (owner !== undefined) {
    channels.push({
      name: 'whatsapp',
      send: async ({ id, text }) =>
        judgeTemplate(await sendTemplate({ ...owner, parameter: text, correlationId: id, timeoutMs: SEND_TIMEOUT_MS })),
    });
  }
  return channels;
}

function ownerOf(settings: Settings) {
  const { ALERT_WHATSAPP_TO: to, ALERT_WHATSAPP_TEMPLATE: template, ALERT_WHATSAPP_LANGUAGE: language } = settings;
  const { KAPSO_API_KEY: apiKey, KAPSO_BASE_URL: baseUrl, KAPSO_PHONE_NUMBER_ID: phoneNumberId } = settings;
  if (to === undefined || template === undefined || apiKey === undefined || phoneNumberId === undefined) return undefined;
  return { to, template, language, apiKey, baseUrl, phoneNumberId };
}

/** A receiver can detect a duplicate by its id, so a message without a response is sent again. */
function judgePost(answer: CallbackAnswer): Attempt {
  switch (answer.kind) {
    case 'no_answer':
      return { kind: 'failed', reason: `no answer: ${answer.reason}` };
    case 'forbidden':
      return { kind: 'failed', reason: answer.problem };
    case 'answered': {
      const { httpStatus, retryAfterMs } = answer;
      if (httpStatus >= 200 && httpStatus < 300) return { kind: 'delivered' };
      return { kind: 'failed', reason: `responded with ${httpStatus}`, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) };
    }
  }
}

function judgeTemplate(answer: SendAnswer): Attempt {
  switch (answer.kind) {
    case 'accepted':
      return { kind: 'delivered' };
    case 'unknown':
      return { kind: 'in_doubt', reason: answer.reason };
    case 'not_sent':
      return { kind: 'failed', reason: `unreachable ${answer.code}` };
    case 'refused': {
      const { graphCode, httpStatus, retryAfterMs } = answer;
      const reason = `refused ${graphCode ?? `http ${httpStatus}`}`;
      return { kind: 'failed', reason, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) };
    }
  }
}

async function sendDue(parts: Parts, channel: Channel): Promise<void> {
  const { db, signal } = parts;
  while (!signal.aborted) {
    const alert = await claimAlert(db, channel.name);
    if (alert === undefined) return;
    await sendAlert(parts, channel, alert);
  }
}

async function sendAlert({ settings, db, logger }: Parts, channel: Channel, alert: ClaimedAlert): Promise<void> {
  const { cause, messageId, attempts } = alert;
  const attempt = await channel.send({ id: messageId, text: textOf(alert, settings.PUBLIC_URL) });
  const line = { channel: channel.name, cause, messageId, attempts };
  switch (attempt.kind) {
    case 'delivered':
      await settleAlert(db, channel.name, alert);
      logger.info(line, 'alert sent');
      break;
    case 'in_doubt':
      await doubtAlert(db, channel.name, alert);
      logger.warn({ ...line, reason: attempt.reason }, 'unknown whether an alert was sent; trying again after an hour');
      break;
    case 'failed': {
      const pauseSeconds = Math.min(FIRST_PAUSE_SECONDS * 2 ** (attempts - 1), LONGEST_PAUSE_SECONDS);
      await postponeAlert(db, channel.name, alert, Math.max(pauseSeconds, (attempt.retryAfterMs ?? 0) / 1_000));
      logger.warn({ ...line, reason: attempt.reason }, 'alert not sent; trying again');
    }
  }
}

/** The text for people: what happened, how often, and where to look. */
function textOf({ text, subject, unreported }: ClaimedAlert, publicUrl: string | undefined): string {
  const count = unreported > 1 ? ` (${unreported} times since the last alert)` : '';
  const lines = [`Parley: ${text}${count}`, ...(subject === null ? [] : [unreported > 1 ? `last: ${subject}` : subject])];
  const link = linkTo(subject, publicUrl);
  return [...lines, ...(link === undefined ? [] : [link])].join('\n');
}

const PATHS: Readonly<Record<string, string>> = { conversation: '/api/v1/conversations/', call: '/api/v1/vapi/calls/' };

function linkTo(subject: string | null, publicUrl: string | undefined): string | undefined {
  const [kind = '', id] = subject?.split(' ') ?? [];
  const path = PATHS[kind];
  return publicUrl === undefined || path === undefined || id === undefined ? undefined : `${publicUrl}${path}${id}`;
}

async function checkDeliveries({ settings, db, logger }: Parts): Promise<void> {
  const minutes = settings.UNDELIVERED_AFTER_MINUTES;
  const conversationIds = await reportUndelivered(db, minutes);
  if (conversationIds.length > 0) logger.warn({ conversationIds, minutes }, 'messages were sent, and are still not delivered');
  await clearDelivered(db, minutes);
}
