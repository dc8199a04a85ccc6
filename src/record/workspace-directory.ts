/**
 * The workspaces in the memory of a process, with the settings that apply to each. Webhooks are verified and clients are made with it:
 * neither may wait for the database, nor fail while it is down. One small query tells whether anything has changed.
 */
import type { Settings } from '../platform/config';
import { type Database, sql } from '../platform/database';
import type { EncryptionKeys } from '../platform/encryption';
import type { Logger } from '../platform/logger';
import { settingsOfWorkspace, type WorkspaceCredentials } from '../platform/workspace-settings';
import { type CredentialRow, decryptCredentials } from './credentials';

/** A workspace, with what applies to it. The same object as long as nothing changes, so that clients can be kept with it. */
export interface KnownWorkspace {
  id: string;
  name: string;
  kapsoPhoneNumberId: string | null;
  vapiPhoneNumberId: string | null;
  /** Its own credentials; null for one that cannot be decrypted. */
  credentials: WorkspaceCredentials;
  /** Its own settings, or those of the environment. */
  settings: Settings;
  /** Why credentials cannot be decrypted; undefined if all can. */
  problem: string | undefined;
}

/** All workspaces at one moment. */
export interface Workspaces {
  /** The oldest first. */
  byId: ReadonlyMap<string, KnownWorkspace>;
  byKapsoNumber: ReadonlyMap<string, KnownWorkspace>;
  byVapiNumber: ReadonlyMap<string, KnownWorkspace>;
  /** When they were read, by `performance.now()`. */
  readAtMs: number;
}

export interface WorkspaceDirectory {
  /** What is known, however old; undefined before the first read. Renews it in the background if it is older than `RENEW_AFTER_MS`. */
  peek(): Workspaces | undefined;
  /** At most `maxAgeMs` old (default `RENEW_AFTER_MS`); older if the database is away. @throws if it was never read, and cannot be */
  current(maxAgeMs?: number): Promise<Workspaces>;
  /** One workspace; undefined if there is none. Reads again before it says so, because the workspace may be new. @throws as `current` */
  find(choose: (workspaces: Workspaces) => KnownWorkspace | undefined): Promise<KnownWorkspace | undefined>;
}

/** A change is noticed by every process after this time at the latest, if the workspace is in use. */
export const RENEW_AFTER_MS = 2_000;

/** Creates the directory, which reads on first use. */
export function createWorkspaceDirectory(parts: {
  db: Database;
  settings: Settings & { ENCRYPTION_KEY: EncryptionKeys };
  logger: Logger;
}): WorkspaceDirectory {
  const { db, settings, logger } = parts;
  let known: (Workspaces & { version: string }) | undefined;
  let reading: Promise<void> | undefined;

  async function renew(): Promise<void> {
    const readAtMs = performance.now();
    const version = await readVersion(db);
    if (known?.version === version) {
      known = { ...known, readAtMs };
      return;
    }
    const previous = known?.byId;
    const rows = await readWorkspaces(db);
    const workspaces = rows.map((row) => {
      const earlier = previous?.get(row.id) as VersionedWorkspace | undefined;
      return earlier?.version === row.version ? earlier : knownWorkspace(row, settings);
    });
    for (const { id, problem } of workspaces) {
      if (problem !== undefined && previous?.get(id)?.problem !== problem)
        logger.error({ workspaceId: id, problem }, 'credentials of a workspace cannot be decrypted; it can neither receive nor send');
    }
    known = { ...indexed(workspaces), readAtMs, version };
  }

  function renewOnce(): Promise<void> {
    reading ??= renew().finally(() => {
      reading = undefined;
    });
    return reading;
  }

  async function current(maxAgeMs = RENEW_AFTER_MS): Promise<Workspaces> {
    if (!isOlderThan(maxAgeMs) && known) return known;
    try {
      await renewOnce();
    } catch (error) {
      if (known === undefined) throw error;
      logger.warn({ error }, 'the workspaces could not be read again; using what is known');
    }
    if (known === undefined) throw new Error('the workspaces were not read');
    return known;
  }

  const isOlderThan = (ageMs: number) => known === undefined || performance.now() - known.readAtMs > ageMs;

  return {
    peek() {
      if (isOlderThan(RENEW_AFTER_MS)) renewOnce().catch((error: unknown) => logger.warn({ error }, 'the workspaces could not be read'));
      return known;
    },
    current,
    async find(choose) {
      return choose(await current()) ?? choose(await current(0));
    },
  };
}

type VersionedWorkspace = KnownWorkspace & { version: number };

interface WorkspaceRow {
  id: string;
  version: number;
  name: string;
  kapsoPhoneNumberId: string | null;
  vapiPhoneNumberId: string | null;
  vapiAssistantId: string | null;
  timeZone: string | null;
  credentials: CredentialRow[];
}

/** Changes with every change of any workspace or credential, in whatever order transactions commit. */
async function readVersion(db: Database): Promise<string> {
  const [row] = await db.query<{ version: string }>(sql`
    SELECT count(*) || ':' || COALESCE(sum(hashtextextended(id::text, version)), 0) AS version FROM workspaces`);
  return row?.version ?? '';
}

async function readWorkspaces(db: Database): Promise<WorkspaceRow[]> {
  return await db.query<WorkspaceRow>(sql`
    SELECT w.id, w.version, w.name, w.kapso_phone_number_id AS "kapsoPhoneNumberId", w.vapi_phone_number_id AS "vapiPhoneNumberId",
      w.vapi_assistant_id AS "vapiAssistantId", w.time_zone AS "timeZone",
      COALESCE((SELECT json_agg(json_build_object('field', c.field, 'encrypted', c.encrypted)) FROM workspace_credentials c
        WHERE c.workspace_id = w.id), '[]') AS credentials
    FROM workspaces w ORDER BY w.created_at, w.id`);
}

function knownWorkspace({ credentials: rows, vapiAssistantId, timeZone, ...row }: WorkspaceRow, settings: Settings): VersionedWorkspace {
  const { credentials, problem } = decryptCredentials(row.id, rows, settings.ENCRYPTION_KEY);
  return {
    ...row,
    credentials,
    settings: settingsOfWorkspace(settings, { ...row, vapiAssistantId, timeZone, credentials }),
    problem,
  };
}

function indexed(workspaces: readonly KnownWorkspace[]): Pick<Workspaces, 'byId' | 'byKapsoNumber' | 'byVapiNumber'> {
  const by = (keyOf: (workspace: KnownWorkspace) => string | null) =>
    new Map(workspaces.flatMap((workspace) => (keyOf(workspace) === null ? [] : [[keyOf(workspace) ?? '', workspace] as const])));
  return {
    byId: by(({ id }) => id),
    byKapsoNumber: by(({ kapsoPhoneNumberId }) => kapsoPhoneNumberId),
    byVapiNumber: by(({ vapiPhoneNumberId }) => vapiPhoneNumberId),
  };
}
