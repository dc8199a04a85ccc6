/** Checks WhatsApp from the outside in: Kapso's key and number, its webhook, and a signed test webhook to the same address. */

import type { Settings } from '../../platform/config';
import { whatsAppState } from '../../platform/config';
import { withDeadline } from '../../platform/deadline';
import { sendRequest } from '../../platform/http-request';
import { type KapsoProject, type KapsoRows, listNumbers, listWebhooks, type NumberWebhook } from '../../providers/kapso/platform';
import { signatureFor } from '../../providers/kapso/signature';
import { KAPSO_WEBHOOK_PATHS } from '../../providers/kapso/webhook-paths';
import { mostLikelyOurs, plainUrl, RECEIVED_EVENT, STATUS_EVENTS } from '../../providers/kapso/webhook-setup';
import { about, type Finding } from './finding';

const TEST_TIMEOUT_MS = 10_000;

const kapso = about('Kapso');
const webhooks = about('Webhook');
const test = about('Test webhook');

type WhatsAppSettings = Pick<
  Settings,
  'KAPSO_API_KEY' | 'KAPSO_BASE_URL' | 'KAPSO_PHONE_NUMBER_ID' | 'KAPSO_WEBHOOK_SECRET' | 'PUBLIC_URL' | 'SANDBOX_URL'
>;

/** Checks everything between the customer's phone and the API. `apiUrl`: the API on this machine. */
export async function checkWhatsApp(settings: WhatsAppSettings, apiUrl: string): Promise<Finding[]> {
  const { KAPSO_API_KEY: apiKey, KAPSO_BASE_URL: baseUrl, KAPSO_PHONE_NUMBER_ID: phoneNumberId } = settings;
  if (apiKey === undefined) return [kapso.note('WhatsApp is off: KAPSO_API_KEY is not set')];
  if (phoneNumberId === undefined)
    return [kapso.problem("KAPSO_PHONE_NUMBER_ID is not set: set Kapso's id of your number, not the number itself")];
  const project = { baseUrl, apiKey };
  const numbers = await checkNumber(project, phoneNumberId);
  if (numbers.some(({ level }) => level === 'problem')) return numbers;
  const { webhook, findings } = await checkWebhook(project, phoneNumberId, settings);
  const first =
    whatsAppState(settings) === 'simulated'
      ? [kapso.ok('simulated: no message reaches a real person (set KAPSO_API_KEY to use the real one)')]
      : numbers;
  return [...first, ...findings, await checkDelivery(settings, webhook?.url ?? addressOf(settings, apiUrl))];
}

async function checkNumber(project: KapsoProject, phoneNumberId: string): Promise<Finding[]> {
  const numbers = await listNumbers(project);
  if (numbers.kind !== 'rows') return [kapso.problem(failureOf(numbers))];
  const number = numbers.rows.find(({ id }) => id === phoneNumberId);
  if (!number)
    return [
      kapso.problem(
        `the key works, but its project has no number ${phoneNumberId} (it has ${numbers.rows.length}): check KAPSO_PHONE_NUMBER_ID, and that the key belongs to the same project`,
      ),
    ];
  if (number.takesMessages === false)
    return [kapso.problem(`Kapso does not process messages to the number ${phoneNumberId}: turn on its inbound processing in Kapso`)];
  return [kapso.ok(`the key works, and its project has the number ${phoneNumberId}`)];
}

function failureOf(answer: Exclude<KapsoRows<unknown>, { kind: 'rows' }>): string {
  if (answer.kind === 'unreachable') return `Kapso could not be queried (${answer.reason}): check the network and KAPSO_BASE_URL`;
  const isKey = answer.status === 401 || answer.status === 403;
  return isKey ? `Kapso refuses the key (${answer.status}): check KAPSO_API_KEY` : `Kapso responded with ${answer.status}: try again`;
}

async function checkWebhook(
  project: KapsoProject,
  phoneNumberId: string,
  settings: WhatsAppSettings,
): Promise<{ webhook?: NumberWebhook; findings: Finding[] }> {
  const listed = await listWebhooks(project, phoneNumberId);
  if (listed.kind !== 'rows') return { findings: [webhooks.problem(failureOf(listed))] };
  const webhook = mostLikelyOurs(listed.rows, settings.PUBLIC_URL);
  const path = KAPSO_WEBHOOK_PATHS[0];
  if (!webhook)
    return {
      findings: [
        webhooks.problem(
          `none of the number's ${listed.rows.length} webhooks leads to Parley: run \`npm run setup\`, or add one in Kapso, to ${settings.PUBLIC_URL ?? 'https://<your address>'}${path}`,
        ),
      ],
    };
  const findings = webhookFindings(webhook, settings);
  return { webhook, findings: findings.length > 0 ? findings : [webhooks.ok(`Kapso sends to ${plainUrl(webhook.url)}`)] };
}

function webhookFindings(webhook: NumberWebhook, settings: WhatsAppSettings): Finding[] {
  const { url, kind, events, isActive, payloadVersion, isBuffered, secret } = webhook;
  const findings: Finding[] = [];
  const isSimulated = whatsAppState(settings) === 'simulated';
  if (!isActive)
    findings.push(
      webhooks.problem(
        'the webhook is paused, after too many failures or by hand: resume it with `npm run setup` or in Kapso, which never does so by itself',
      ),
    );
  if (new URL(url).protocol !== 'https:' && !isSimulated)
    findings.push(webhooks.problem("the webhook's address is not https: Kapso sends to https only"));
  if (kind !== 'meta' && !events.includes(RECEIVED_EVENT))
    findings.push(webhooks.problem(`the webhook lacks the event ${RECEIVED_EVENT}, so no message arrives: add the event in Kapso`));
  const missing = STATUS_EVENTS.filter((event) => !events.includes(event));
  if (kind !== 'meta' && missing.length > 0)
    findings.push(webhooks.warning(`without ${missing.join(', ')}, Parley does not learn whether its replies arrive: add them in Kapso`));
  if (kind === 'meta')
    findings.push(webhooks.warning('its kind is meta, whose signature Kapso does not document: replace it with one of kind kapso'));
  if (payloadVersion !== undefined && payloadVersion !== 'v2')
    findings.push(webhooks.problem(`the webhook's payload version is ${payloadVersion}: set v2`));
  if (isBuffered)
    findings.push(
      webhooks.warning('it is buffered, which delays each message by seconds: turn buffering off; Parley waits for a quiet moment itself'),
    );
  if (secret !== undefined && !settings.KAPSO_WEBHOOK_SECRET.includes(secret))
    findings.push(
      webhooks.problem("the webhook's secret is not in KAPSO_WEBHOOK_SECRET, so what it sends is refused: set the same on both sides"),
    );
  return findings;
}

function addressOf({ PUBLIC_URL }: WhatsAppSettings, apiUrl: string): string {
  return `${PUBLIC_URL ?? apiUrl}${KAPSO_WEBHOOK_PATHS[0]}`;
}

/**
 * Sends one signed webhook to the address of Kapso's webhooks. Parley verifies it and then ignores it: its event is neither Kapso's nor
 * Meta's, and its body has no message, person or number. Meta's handshake would prove less, because it is not signed.
 */
async function checkDelivery({ KAPSO_WEBHOOK_SECRET: [secret] }: WhatsAppSettings, url: string): Promise<Finding> {
  const where = plainUrl(url);
  if (secret === undefined) return test.problem('KAPSO_WEBHOOK_SECRET is not set, so every webhook is refused');
  const body = JSON.stringify({ test: 'npm run doctor' });
  const headers = {
    'Content-Type': 'application/json',
    'X-Webhook-Event': 'parley.test',
    'X-Webhook-Signature': signatureFor(Buffer.from(body), secret),
  };
  try {
    const answer = await withDeadline(TEST_TIMEOUT_MS, (signal) => sendRequest(url, { method: 'POST', headers, body, signal }));
    if (answer.status === 401)
      return test.problem(`${where} refuses our signature: the API there has another KAPSO_WEBHOOK_SECRET, or was not restarted since`);
    if (answer.status !== 200 || !isReceipt(answer.text))
      return test.problem(`${where} responded with ${answer.status}, and not as Parley does: check the address, the tunnel and the proxy`);
    return test.ok(`a signed webhook reached Parley at ${where}`);
  } catch {
    return test.problem(`${where} cannot be reached: check the address, the tunnel and the proxy, and that Parley runs`);
  }
}

function isReceipt(text: string): boolean {
  try {
    return (JSON.parse(text) as { received?: unknown } | null)?.received === true;
  } catch {
    return false;
  }
}
