/** The order of call statuses, as SQL: a status only rises. */
import type { Prisma } from '../../prisma/generated/client';
import { CALL_STATUSES } from '../../workflows/contract';
import { sql } from '../platform/database';

/** 0 for a status outside the order (`not-found`, or a new one): it is stored as an event, but never applied. */
const heightOf = (status: Prisma.Sql) => sql`COALESCE(array_position(${[...CALL_STATUSES]}::text[], ${status}), 0)`;

/** The higher of the two statuses; the known one if they are equal. */
export const higherStatus = (known: Prisma.Sql, reported: Prisma.Sql) =>
  sql`CASE WHEN ${heightOf(reported)} > ${heightOf(known)} THEN ${reported} ELSE ${known} END`;
