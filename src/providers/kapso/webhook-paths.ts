/** Paths of our webhook endpoint for Kapso; the first is the one to use, existing senders use all three. */
export const KAPSO_WEBHOOK_PATHS = ['/webhook/kapso', '/api/webhook/kapso', '/api/whatsapp/webhook'] as const;
