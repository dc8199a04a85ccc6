/** Imports a number's history from Kapso, a page at a time. Every step may run twice. */
import { ApplicationFailure, Context } from '@temporalio/activity';
import type { Database } from '../src/platform/database';
import type { Logger } from '../src/platform/logger';
import { readPastConversation, readPastMessage } from '../src/providers/kapso/lists';
import {
  beginSync,
  countHistory,
  endSync,
  findTalk,
  importMessages,
  type PastTalk,
  placeTalk,
  type SyncStatus,
  saveSyncPosition,
} from '../src/record/history';
import type { Identity } from '../src/record/identity';
import { findRepairedUntil } from '../src/record/repairs';
import { spoolDepth } from '../src/record/spool';
import type { AnswerLimits } from '../src/record/unanswered';
import type { SyncPosition } from '../workflows/contract';
import { listFailure } from './kapso-failures';
import { whileBeating } from './progress';
import type { KapsoAccount } from './repair';

/** Which import a step belongs to. */
export interface SyncOrder {
  workspaceId: string;
  phoneNumberId: string;
  syncId: string;
}

export interface HistoryActivities {
  /** Where to begin: where an earlier import stopped, unless it was finished or `fromStart`. */
  beginSync(order: SyncOrder & { fromStart: boolean }): Promise<SyncPosition>;
  /** Imports the page at the position, and returns that of the next one. @throws ApplicationFailure `KapsoError.…` */
  syncPage(order: SyncOrder & { position: SyncPosition }): Promise<SyncPosition>;
  /** Notes how the import ended. */
  endSync(order: SyncOrder & { status: SyncStatus; problem?: string }): Promise<void>;
}

interface HistoryDependencies {
  db: Database;
  logger: Logger;
  identity: Identity;
  answerLimits: AnswerLimits;
  kapsoAccount(phoneNumberId: string): Promise<KapsoAccount | undefined>;
  /** Whether repair takes the newest messages, so that they are answered. */
  repairs: boolean;
}

/** Newer messages may still arrive by webhook. Equal to the overlap of two repair passes, so that no message is missed by both. */
const SETTLED_AFTER_MS = 5 * 60_000;

/** The activities of the import. */
export function createHistoryActivities(dependencies: HistoryDependencies): HistoryActivities {
  const { db, logger, kapsoAccount, repairs } = dependencies;
  return {
    async beginSync({ workspaceId, phoneNumberId, syncId, fromStart }) {
      const repairedUntilMs = repairs ? await findRepairedUntil(db, phoneNumberId) : undefined;
      // What waits in the spool is answered once Temporal has it.
      const { oldestSeconds } = await spoolDepth(db);
      const untilMs = Math.min(Date.now() - oldestSeconds * 1_000, repairedUntilMs ?? Number.POSITIVE_INFINITY) - SETTLED_AFTER_MS;
      const position = await beginSync(db, { workspaceId, syncId, fromStart, untilMs });
      logger.info({ workspaceId, syncId, ...position, cursor: position.cursor !== undefined }, 'importing history');
      return position;
    },

    async syncPage({ workspaceId, phoneNumberId, syncId, position }) {
      const account = await kapsoAccount(phoneNumberId);
      if (account === undefined)
        throw ApplicationFailure.create({ type: 'KapsoError.Refused', message: 'KAPSO_API_KEY is not set', nonRetryable: true });
      const imports = { ...dependencies, account, phoneNumberId };
      const next = await whileBeating(() =>
        position.phase === 'conversations' ? importPeople(imports, position) : importPage(imports, workspaceId, position),
      );
      await saveSyncPosition(db, workspaceId, syncId, next);
      return next;
    },

    async endSync({ workspaceId, syncId, status, problem }) {
      logger.info({ workspaceId, syncId, status, problem }, 'import of history ended');
      await endSync(db, { workspaceId, syncId, status, ...(problem === undefined ? {} : { problem }) });
    },
  };
}

interface Import extends HistoryDependencies {
  account: KapsoAccount;
  phoneNumberId: string;
}

/** A page of conversations: only they have both a person's number and their business-scoped id. */
async function importPeople({ account, phoneNumberId, ...rules }: Import, position: SyncPosition): Promise<SyncPosition> {
  const { cursor: after } = position;
  const query = { phoneNumberId, ...(after === undefined ? {} : { after }) };
  const page = await account.lists.conversations(query, Context.current().cancellationSignal).catch((error: unknown) => {
    throw listFailure(error);
  });
  let unreadable = 0;
  for (const row of page.rows) {
    const person = readPastConversation(row, phoneNumberId);
    const talk = person && (await findTalk(rules.db, phoneNumberId, person, rules));
    if (talk) await placeTalk(rules.db, talk, person.lastActiveAtMs);
    else unreadable += 1;
  }
  const counted = { ...position, conversations: position.conversations + page.rows.length, unreadable: position.unreadable + unreadable };
  return afterwards(counted, page.next, 'messages');
}

/** A page of messages, person by person. */
async function importPage(
  { account, phoneNumberId, ...rules }: Import,
  workspaceId: string,
  position: SyncPosition,
): Promise<SyncPosition> {
  const { cursor: after, untilMs } = position;
  const query = { phoneNumberId, untilMs, ...(after === undefined ? {} : { after }) };
  const page = await account.lists.messages(query, Context.current().cancellationSignal).catch((error: unknown) => {
    throw listFailure(error);
  });
  const { talks, unreadable } = talksOf(page.rows, phoneNumberId);
  for (const talk of talks) {
    const known = await findTalk(rules.db, phoneNumberId, talk, rules);
    if (known) await importMessages(rules.db, phoneNumberId, known, talk.messages, rules);
  }
  const ids = talks.flatMap(({ messages }) => messages.map(({ message }) => message.providerMessageId));
  const imported = position.imported + (await countHistory(rules.db, workspaceId, ids));
  const messages = position.messages + page.rows.length;
  return afterwards({ ...position, messages, imported, unreadable: position.unreadable + unreadable }, page.next, 'done');
}

/** Names are left out: the conversations have newer ones. */
function talksOf(rows: readonly unknown[], phoneNumberId: string): { talks: PastTalk[]; unreadable: number } {
  const talks = new Map<string, PastTalk>();
  let unreadable = 0;
  for (const row of rows) {
    const past = readPastMessage(row, phoneNumberId);
    if (past === undefined) {
      unreadable += 1;
      continue;
    }
    const { name: _name, username: _username, ...contact } = past.contact;
    const key = JSON.stringify([contact.phone, contact.businessScopedUserId]);
    const talk: PastTalk = talks.get(key) ?? { contact, lastActiveAtMs: 0, messages: [] };
    talks.set(key, talk);
    talk.lastActiveAtMs = Math.max(talk.lastActiveAtMs, past.message.sentAtMs);
    talk.messages.push(past);
  }
  return { talks: [...talks.values()], unreadable };
}

function afterwards(
  { cursor: _read, ...position }: SyncPosition,
  next: string | undefined,
  nextPhase: SyncPosition['phase'],
): SyncPosition {
  return next === undefined ? { ...position, phase: nextPhase } : { ...position, cursor: next };
}
