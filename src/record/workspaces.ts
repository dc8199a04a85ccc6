/** Workspaces: the first one is made from the settings at start. */
import type { Prisma, PrismaClient } from '../../prisma/generated/client';
import { UNASSIGNED_NUMBER } from '../../workflows/contract';
import type { Settings } from '../platform/config';
import { type Database, sql } from '../platform/database';

/**
 * Makes the workspace of `KAPSO_PHONE_NUMBER_ID` if there is none, and applies the settings that are set.
 * What is not set stays as it stands in the record, so a change made there survives a restart.
 */
export async function ensureFirstWorkspace(db: PrismaClient, settings: Settings): Promise<void> {
  const kapsoPhoneNumberId = settings.KAPSO_PHONE_NUMBER_ID;
  if (!kapsoPhoneNumberId) return;
  await db.workspace.createMany({ data: [{ name: 'First workspace', kapsoPhoneNumberId }], skipDuplicates: true });
  const { id: workspaceId } = await db.workspace.findUniqueOrThrow({ where: { kapsoPhoneNumberId }, select: { id: true } });
  await db.chatbotSettings.createMany({ data: [{ workspaceId }], skipDuplicates: true });
  const chosen = chosenSettings(settings);
  if (Object.keys(chosen).length > 0) await db.chatbotSettings.update({ where: { workspaceId }, data: chosen });
}

/** What the workspace of a number does now, by the record; undefined when there is none. */
export async function workspaceState(
  db: PrismaClient,
  kapsoPhoneNumberId: string,
): Promise<{ answers: boolean; providerChain: string[] } | undefined> {
  const settings = await db.chatbotSettings.findFirst({ where: { workspace: { kapsoPhoneNumberId } } });
  if (!settings) return undefined;
  return { answers: settings.chatbotEnabled && settings.aiEnabled, providerChain: settings.providerChain };
}

function chosenSettings(settings: Settings): Record<string, boolean | number | string | string[]> {
  const all = {
    chatbotEnabled: settings.CHATBOT_ENABLED,
    aiEnabled: settings.AI_ENABLED,
    providerChain: settings.AI_PROVIDERS,
    systemPrompt: settings.AI_SYSTEM_PROMPT,
    quietMs: settings.REPLY_QUIET_MS,
    quietMaxMs: settings.REPLY_QUIET_MAX_MS,
    sessionTimeoutMs: settings.SESSION_TIMEOUT_MS,
    sendConfirmMs: settings.SEND_CONFIRM_MS,
  };
  return Object.fromEntries(Object.entries(all).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])));
}

/** Condition on `workspaces w`. A body that named no number belongs to the first workspace. */
export function isWorkspaceOf(phoneNumberId: string): Prisma.Sql {
  return phoneNumberId === UNASSIGNED_NUMBER
    ? sql`w.id = (SELECT id FROM workspaces ORDER BY created_at, id LIMIT 1)`
    : sql`w.kapso_phone_number_id = ${phoneNumberId}`;
}

/** Whether a workspace has the number. */
export async function hasWorkspace(db: Database, phoneNumberId: string): Promise<boolean> {
  const rows = await db.query<unknown>(sql`SELECT 1 FROM workspaces w WHERE ${isWorkspaceOf(phoneNumberId)}`);
  return rows.length > 0;
}
