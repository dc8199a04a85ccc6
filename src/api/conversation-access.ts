/** Finds the conversation that a request names. */
import type { Request, Response } from 'express';
import { workspaceOf } from '../http/access';
import { ApiError } from '../http/errors';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import { type ConversationRow, findConversation } from '../record/conversations';
import { conversationParameters } from './conversations';

/** The conversation `:id`, or the one that it was merged into. @throws ApiError 404, also if it belongs to another workspace */
export async function requestedConversation(db: Database, request: Request, response: Response): Promise<ConversationRow> {
  const parameters = conversationParameters.safeParse(request.params);
  const row = parameters.success ? await fromRecord(findConversation(db, parameters.data.id, workspaceOf(response))) : null;
  if (!row) throw new ApiError(404, 'no such conversation');
  return row;
}
