/** Paths of our webhook endpoint for Kapso. New webhooks use the first; existing ones use all three. */
export const KAPSO_WEBHOOK_PATHS = ['/webhook/kapso', '/api/webhook/kapso', '/api/whatsapp/webhook'] as const;
