/** An id that Vapi made, of a call, an assistant or a number: as a rule a UUID, and nothing promises it. */
import { z } from 'zod';

/** The one pattern: what the webhook keeps can be asked for. */
export const vapiId = z.string().regex(/^[\w.-]{1,128}$/, 'must be an id of letters and digits');
