/** An id issued by Vapi, for a call, an assistant or a phone number: usually a UUID, but that is not guaranteed. */
import { z } from 'zod';

/** Shared by the webhook and the API, so that every stored id can also be queried. */
export const vapiId = z.string().regex(/^[\w.-]{1,128}$/, 'must be an id: letters, digits, "_", "." or "-"');
