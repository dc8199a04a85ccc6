/** Workspaces. The first one is created from the settings at startup. */
import type { Prisma, PrismaClient } from '../../prisma/generated/client';
import { UNASSIGNED_NUMBER } from '../../workflows/contract';
import type { Settings } from '../platform/config';
import { type Database, sql } from '../platform/database';

/**
 * Creates the workspace of `KAPSO_PHONE_NUMBER_ID` if it does not exist, and applies the settings that are set. The others keep their
 * value in the database, so that a change made there survives a restart.
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

/** Whether and how a workspace answers. */
export interface WorkspaceState {
  chatbotEnabled: boolean;
  aiEnabled: boolean;
  providerChain: string[];
  model: string | null;
}

/** The current state of the workspace of a number; undefined if there is none. */
export async function workspaceState(db: PrismaClient, kapsoPhoneNumberId: string): Promise<WorkspaceState | undefined> {
  const select = { chatbotEnabled: true, aiEnabled: true, providerChain: true, model: true } as const;
  return (await db.chatbotSettings.findFirst({ where: { workspace: { kapsoPhoneNumberId } }, select })) ?? undefined;
}

/** The models that a business number is set to use. */
export interface NumberedChain {
  phoneNumberId: string;
  providerChain: string[];
  model: string | null;
}

/** The models of all workspaces that answer. */
export async function chainsInUse(db: Database): Promise<NumberedChain[]> {
  return await db.query<NumberedChain>(sql`
    SELECT w.kapso_phone_number_id AS "phoneNumberId", s.provider_chain AS "providerChain", s.model
    FROM chatbot_settings s JOIN workspaces w ON w.id = s.workspace_id WHERE s.chatbot_enabled AND s.ai_enabled`);
}

function millisecondsOf(minutes: number | undefined): number | undefined {
  return minutes === undefined ? undefined : Math.round(minutes * 60_000);
}

function chosenSettings(settings: Settings): Record<string, boolean | number | string | string[] | Record<string, string>> {
  const all = {
    chatbotEnabled: settings.CHATBOT_ENABLED,
    aiEnabled: settings.AI_ENABLED,
    providerChain: settings.AI_PROVIDERS,
    systemPrompt: settings.AI_SYSTEM_PROMPT,
    quietMs: settings.REPLY_QUIET_MS,
    quietMaxMs: settings.REPLY_QUIET_MAX_MS,
    sessionTimeoutMs: settings.SESSION_TIMEOUT_MS,
    sendConfirmMs: settings.SEND_CONFIRM_MS,
    onNewMessage: settings.ON_NEW_MESSAGE,
    ownerPauseMs: millisecondsOf(settings.OWNER_PAUSE_MINUTES),
    personWaitMs: millisecondsOf(settings.PERSON_WAIT_MINUTES),
    handOverTexts: settings.HAND_OVER_TEXTS,
  };
  return Object.fromEntries(Object.entries(all).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])));
}

/** The id of the first workspace; null while there is none. */
export const firstWorkspace = sql`(SELECT id FROM workspaces ORDER BY created_at, id LIMIT 1)`;

/** The fields of a workspace that a call needs. */
export interface CallWorkspace {
  id: string;
  /** Vapi's id of the number that its calls come from. */
  vapiPhoneNumberId: string | null;
}

/** The workspace with this id, or else the first one; undefined if there is none. */
export async function findCallWorkspace(db: Database, id: string | undefined): Promise<CallWorkspace | undefined> {
  const rows = await db.query<CallWorkspace>(sql`
    SELECT id, vapi_phone_number_id AS "vapiPhoneNumberId" FROM workspaces WHERE id = COALESCE(${id ?? null}::uuid, ${firstWorkspace})`);
  return rows[0];
}

/** Whether a workspace other than this one has the number at Vapi. */
export async function isVapiNumberOfAnother(db: Database, vapiNumberId: string, workspaceId: string): Promise<boolean> {
  const rows = await db.query(sql`SELECT 1 FROM workspaces WHERE vapi_phone_number_id = ${vapiNumberId} AND id <> ${workspaceId}::uuid`);
  return rows.length > 0;
}

/** The workspace that has this number at Vapi, or else the first one, as an SQL expression. */
export function workspaceOfVapiNumber(phoneNumberId: string | undefined): Prisma.Sql {
  return sql`COALESCE((SELECT id FROM workspaces WHERE vapi_phone_number_id = ${phoneNumberId ?? null}), ${firstWorkspace})`;
}

/** A workspace with Kapso's id of its number; undefined if there is none with this id. */
export async function findWorkspace(db: PrismaClient, id: string): Promise<{ id: string; kapsoPhoneNumberId: string | null } | undefined> {
  return (await db.workspace.findUnique({ where: { id }, select: { id: true, kapsoPhoneNumberId: true } })) ?? undefined;
}

/** A condition on `workspaces w`. Messages without a number belong to the first workspace. */
export function isWorkspaceOf(phoneNumberId: string): Prisma.Sql {
  return phoneNumberId === UNASSIGNED_NUMBER ? sql`w.id = ${firstWorkspace}` : sql`w.kapso_phone_number_id = ${phoneNumberId}`;
}

/** Whether there is such a workspace. */
export async function workspaceExists(db: Database, id: string): Promise<boolean> {
  return (await db.query(sql`SELECT 1 FROM workspaces WHERE id = ${id}::uuid`)).length > 0;
}

/** Whether a workspace has the number. */
export async function hasWorkspace(db: Database, phoneNumberId: string): Promise<boolean> {
  const rows = await db.query<unknown>(sql`SELECT 1 FROM workspaces w WHERE ${isWorkspaceOf(phoneNumberId)}`);
  return rows.length > 0;
}

/** The time zone in which a workspace's days begin. */
export interface WorkspaceTimeZone {
  workspaceId: string;
  /** IANA name. */
  timeZone: string;
}

/** The time zone of a workspace or, if none is given, of each: its own, or that of the installation (`TIME_ZONE`). */
export async function findTimeZones(db: Database, workspaceId: string | undefined, timeZone: string): Promise<WorkspaceTimeZone[]> {
  const where = workspaceId === undefined ? {} : { id: workspaceId };
  const rows = await db.orm.workspace.findMany({
    where,
    select: { id: true, timeZone: true },
    orderBy: [{ createdAt: 'asc' }, { id: 'asc' }],
  });
  return rows.map((row) => ({ workspaceId: row.id, timeZone: row.timeZone ?? timeZone }));
}
