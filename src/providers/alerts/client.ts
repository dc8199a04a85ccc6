/** Posts alerts to the operator's webhook, in the form that Slack, Mattermost and others accept. */
import { type CallbackAnswer, type CallbackUrlCheck, checkCallbackUrl, postChecked, type Resolve, signedHeaders } from '../callback/client';

/** The operator's settings (ALERT_WEBHOOK_*, ALERT_SIGNING_SECRET). */
export interface AlertWebhook {
  url: string;
  /** Without it, the messages are not signed (Slack ignores signatures). */
  signingSecret?: string | undefined;
  /** Whether the URL may lead to an internal address, and use http or another port than 443. */
  mayBeInternal: boolean;
  /** Timeout of one delivery in milliseconds, including the DNS look-up. */
  timeoutMs: number;
  /** Resolves a host name to all its addresses (default: the system's resolver). */
  resolve?: Resolve | undefined;
}

/** Posts a message once. `id`: the same at every attempt. Never rejects. */
export async function postAlert(webhook: AlertWebhook, { id, text }: { id: string; text: string }): Promise<CallbackAnswer> {
  const check = checkAlertUrl(webhook);
  if (!check.ok) return { kind: 'forbidden', problem: check.problem };
  const body = JSON.stringify({ text: escapeForSlack(text) });
  const { signingSecret } = webhook;
  const signature = signingSecret === undefined ? {} : signedHeaders(`alert-${id}`, body, signingSecret);
  const message = { headers: { 'Content-Type': 'application/json', ...signature }, body: Buffer.from(body) };
  return await postChecked(check, message, webhook);
}

/** Only the setting's own host is allowed, so the remaining check is which addresses its name resolves to. */
function checkAlertUrl({ url, mayBeInternal }: AlertWebhook): CallbackUrlCheck {
  if (!URL.canParse(url)) return { ok: false, problem: 'ALERT_WEBHOOK_URL is not a URL' };
  const { hostname, port, protocol } = new URL(url);
  const entry = mayBeInternal ? `${hostname}:${port || (protocol === 'https:' ? '443' : '80')}` : hostname;
  return checkCallbackUrl(url, [entry]);
}

/** Slack's three control characters (docs.slack.dev, formatting message text). */
function escapeForSlack(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
