/** The order of a call's states, as SQL: a status only rises. */
import type { Prisma } from '../../prisma/generated/client';
import { sql } from '../platform/database';

/** 0 for a status without a place in the order (`not-found`, or one that is new): it is kept as an event and never applied. */
const heightOf = (status: Prisma.Sql) =>
  sql`COALESCE(array_position(ARRAY['scheduled', 'queued', 'ringing', 'in-progress', 'forwarding', 'ended'], ${status}), 0)`;

/** The reported status where it is higher than the known one, else the known one. */
export const higherStatus = (known: Prisma.Sql, reported: Prisma.Sql) =>
  sql`CASE WHEN ${heightOf(reported)} > ${heightOf(known)} THEN ${reported} ELSE ${known} END`;
