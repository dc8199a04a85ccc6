/** The double of Kapso's platform API as far as it describes a project: its numbers, and the webhooks of each. */
import { randomUUID } from 'node:crypto';
import { type Response, Router } from 'express';
import { sendResponse } from '../responses';

/** A number, as Kapso lists it. */
export interface NumberRow {
  id: string;
  internal_id: string;
  name: string;
  kind: 'production' | 'sandbox';
  inbound_processing_enabled: boolean;
  status: string;
}

/** A webhook, as Kapso lists it: with its secret in plain text. */
export interface WebhookRow {
  id: string;
  url: string;
  kind: 'kapso' | 'meta';
  events: string[];
  active: boolean;
  secret_key: string;
  payload_version: 'v1' | 'v2';
  buffer_enabled: boolean;
  buffer_window_seconds: number;
  max_buffer_size: number;
  buffer_events: string[];
  headers: Record<string, string>;
  inactivity_minutes: number | null;
  phone_number_id: string;
}

const EVENTS = ['received', 'sent', 'delivered', 'read', 'failed'].map((name) => `whatsapp.message.${name}`);
const ALL_ROWS = 100;

/** A project with one number and one webhook per target, all set up correctly. A test may change the rows. */
export class KapsoPlatform {
  numbers: NumberRow[];
  webhooks: WebhookRow[];

  constructor({ phoneNumberId, urls, secret }: { phoneNumberId: string; urls: readonly string[]; secret: string }) {
    this.numbers = [
      {
        ...{ id: phoneNumberId, internal_id: randomUUID(), name: 'Sandbox number', kind: 'sandbox' },
        ...{ inbound_processing_enabled: true, status: 'CONNECTED' },
      },
    ];
    this.webhooks = urls.map((url) => ({
      ...{ id: randomUUID(), url, kind: 'kapso', events: [...EVENTS], active: true, secret_key: secret, payload_version: 'v2' },
      ...{ buffer_enabled: false, buffer_window_seconds: 5, max_buffer_size: 50, buffer_events: [], headers: {} },
      ...{ inactivity_minutes: null, phone_number_id: phoneNumberId },
    }));
  }

  /** The routes under /platform/v1. */
  routes(): Router {
    const router = Router();
    router.get('/whatsapp/phone_numbers', (_request, response) => sendRows(response, this.numbers));
    router.get('/whatsapp/phone_numbers/:id/webhooks', (request, response) => {
      if (this.numbers.some(({ id }) => id === request.params.id))
        sendRows(
          response,
          this.webhooks.filter(({ phone_number_id }) => phone_number_id === request.params.id),
        );
      else sendResponse(response, { status: 404, body: { error: 'Phone number not found' } });
    });
    return router;
  }
}

function sendRows(response: Response, data: object[]): void {
  sendResponse(response, { status: 200, body: { data, meta: { page: 1, per_page: ALL_ROWS, total_pages: 1, total_count: data.length } } });
}
