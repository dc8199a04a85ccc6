/** Webhooks that arrive before startup is complete: the senders repeat them. */
import { readFileSync } from 'node:fs';
import type { Webhook } from '../http/webhook-ingress';
import { readSettings } from '../platform/config';
import { createLogger } from '../platform/logger';
import { kapsoWebhook } from './kapso';
import { vapiWebhook } from './vapi';

const lines: string[] = [];
const logger = createLogger('test', 'warn', { write: (line) => lines.push(line) });
const neverRead = () => Promise.reject(new Error('never read'));
const directory = { peek: () => undefined, current: neverRead, find: neverRead };
const notStarted = { logger, directory, handOverDependencies: () => undefined };
const fixture = (path: string) => readFileSync(`test/fixtures/${path}`);

test.each<[string, Webhook, Buffer]>([
  ['Kapso', kapsoWebhook({ ...notStarted, secrets: ['s'], logShapes: false }), fixture('kapso/webhook_v2_batch_received_1.json')],
  ['Vapi', vapiWebhook({ ...notStarted, settings: readSettings({}) }), fixture('vapi/status-update.ended.future-reason.json')],
])(
  'when a webhook of %s arrives before startup is complete, then the sender is asked to repeat it, and no error is logged',
  async (_who, webhook, rawBody) => {
    const note = () => undefined;
    await expect(webhook.take({ headers: {}, rawBody, note } as unknown as Parameters<Webhook['take']>[0])).rejects.toMatchObject({
      status: 503,
    });
    expect(lines).toEqual([]);
  },
);
