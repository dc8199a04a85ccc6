/** How Kapso's webhook to Parley must be set up. */
import { changeWebhook, createWebhook, type KapsoChange, type KapsoProject, type NumberWebhook, type WebhookChange } from './platform';
import { KAPSO_WEBHOOK_PATHS } from './webhook-paths';

/** Without it, no message arrives. */
export const RECEIVED_EVENT = 'whatsapp.message.received';
/** Without them, Parley does not learn what became of its replies. */
export const STATUS_EVENTS: readonly string[] = ['sent', 'delivered', 'read', 'failed'].map((status) => `whatsapp.message.${status}`);

/** The required state of the webhook. */
export interface WantedWebhook {
  /** Address of the API, without a path. */
  publicUrl: string;
  /** The secrets that the API accepts; a new webhook gets the first one. */
  secrets: readonly string[];
}

/** The planned change. `update` has only the fields that must change. */
export type WebhookPlan =
  | { kind: 'right'; webhook: NumberWebhook }
  | { kind: 'create'; url: string; change: WebhookChange }
  | { kind: 'update'; webhook: NumberWebhook; webhookId: string; change: WebhookChange };

/** The webhooks to one of Parley's paths, at whatever address. */
export function parleyWebhooks(rows: readonly NumberWebhook[]): NumberWebhook[] {
  return rows.filter(({ url }) => URL.canParse(url) && KAPSO_WEBHOOK_PATHS.some((path) => new URL(url).pathname.endsWith(path)));
}

/** The webhook at PUBLIC_URL, else one that is active. Another program may have webhooks of its own. */
export function mostLikelyOurs(rows: readonly NumberWebhook[], publicUrl: string | undefined): NumberWebhook | undefined {
  const ours = parleyWebhooks(rows);
  return ours.find((webhook) => isAt(webhook, publicUrl)) ?? ours.find(({ isActive }) => isActive) ?? ours[0];
}

/** Whether the webhook leads to this address. */
export function isAt({ url }: NumberWebhook, publicUrl: string | undefined): boolean {
  return publicUrl !== undefined && url.startsWith(`${publicUrl}/`);
}

/** Compares the webhooks of a number with what is wanted. Those at other addresses are left alone, and so is one of the kind `meta`. */
export function planWebhook(rows: readonly NumberWebhook[], wanted: WantedWebhook): WebhookPlan {
  const [secret] = wanted.secrets;
  const webhook = parleyWebhooks(rows).find((row) => isAt(row, wanted.publicUrl) && row.kind !== 'meta' && row.id !== undefined);
  const events = [RECEIVED_EVENT, ...STATUS_EVENTS];
  if (webhook?.id === undefined) {
    const url = `${wanted.publicUrl}${KAPSO_WEBHOOK_PATHS[0]}`;
    const change = { url, events, isActive: true, payloadVersion: 'v2', isBuffered: false } as const;
    return { kind: 'create', url, change: { ...change, ...(secret === undefined ? {} : { secret }) } };
  }
  const isSecretKnown = webhook.secret === undefined || wanted.secrets.includes(webhook.secret);
  const change: WebhookChange = {
    ...(events.every((event) => webhook.events.includes(event)) ? {} : { events: [...new Set([...webhook.events, ...events])] }),
    ...(webhook.isActive ? {} : { isActive: true }),
    ...(webhook.payloadVersion === undefined || webhook.payloadVersion === 'v2' ? {} : { payloadVersion: 'v2' as const }),
    ...(webhook.isBuffered ? { isBuffered: false as const } : {}),
    ...(isSecretKnown || secret === undefined ? {} : { secret }),
  };
  return Object.keys(change).length === 0 ? { kind: 'right', webhook } : { kind: 'update', webhook, webhookId: webhook.id, change };
}

/** Carries out the plan. */
export async function applyPlan(project: KapsoProject, phoneNumberId: string, plan: WebhookPlan): Promise<KapsoChange> {
  switch (plan.kind) {
    case 'right':
      return { kind: 'done' };
    case 'create':
      return await createWebhook(project, phoneNumberId, plan.change);
    case 'update':
      return await changeWebhook(project, phoneNumberId, plan.webhookId, plan.change);
  }
}

/** What a plan changes, in words, without secrets. Empty: nothing. */
export function describePlan(plan: WebhookPlan): string[] {
  switch (plan.kind) {
    case 'right':
      return [];
    case 'create':
      return [`create a webhook to ${plan.url}, for messages and the statuses of replies, payload version v2, not buffered`];
    case 'update': {
      const { webhook, change } = plan;
      const added = change.events?.filter((event) => !webhook.events.includes(event)) ?? [];
      return [
        ...(added.length === 0 ? [] : [`add the events ${added.join(', ')}`]),
        ...(change.isActive ? ['switch it on: it is paused'] : []),
        ...(change.payloadVersion === undefined ? [] : [`set the payload version to v2: it is ${webhook.payloadVersion}`]),
        ...(change.isBuffered === undefined ? [] : ['switch buffering off, which delays each message']),
        ...(change.secret === undefined ? [] : ['set its secret to the first of KAPSO_WEBHOOK_SECRET: it has another one']),
      ];
    }
  }
}

/** The URL without password and query, which may be secret. */
export function plainUrl(url: string): string {
  const { origin, pathname } = new URL(url);
  return `${origin}${pathname}`;
}
