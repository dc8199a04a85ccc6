/** Conversations that turned out to be another one's. Workflows and callers may go on naming them. */
import type { Prisma } from '../../prisma/generated/client';
import { sql } from '../platform/database';

/** The id of the conversation that `id` stands for now: itself, or the one that it was merged into. */
export function currentConversation(id: string): Prisma.Sql {
  return sql`COALESCE((SELECT conversation_id FROM merged_conversations WHERE id = ${id}::uuid), ${id}::uuid)`;
}
