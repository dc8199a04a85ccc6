/** Makes the clients of each workspace from its settings, and keeps them as long as these do not change. */
import type { ServicesByWorkspace, WorkspaceServices } from '../../activities/services';
import { ASK_TIMEOUT_MS, DIAL_TIMEOUT_MS } from '../../activities/voice';
import { SEND_TIMEOUT_MS } from '../../activities/whatsapp';
import { UNASSIGNED_NUMBER } from '../../workflows/contract';
import { callsState, type Settings, whatsAppState } from '../platform/config';
import { createKapsoClient, type KapsoClient, unconfiguredKapso, unreadableKapso } from '../providers/kapso/client';
import { createLanguageModels } from '../providers/models/client';
import { callServer, createVapiClient, unreadableVapi, type VapiClient } from '../providers/vapi/client';
import type { KnownWorkspace, WorkspaceDirectory } from '../record/workspace-directory';
import type { WatchedWorkspace } from './model-watch';

/** The services of the directory's workspaces; where there is none, those of the environment. */
export function createWorkspaceServices(settings: Settings, directory: WorkspaceDirectory): ServicesByWorkspace {
  // Keyed by the settings object, which the directory replaces when something changes, so unused clients are freed.
  const made = new WeakMap<Settings, WorkspaceServices>();
  const environment = servicesOf(settings, {});
  const of = (workspace: KnownWorkspace | undefined): WorkspaceServices => {
    if (!workspace) return environment;
    const known = made.get(workspace.settings) ?? servicesOf(workspace.settings, workspace.credentials);
    made.set(workspace.settings, known);
    return known;
  };
  return {
    async ofNumber(phoneNumberId) {
      // Messages without a number belong to the first workspace.
      const isUnassigned = phoneNumberId === UNASSIGNED_NUMBER;
      return of(
        await directory.find(({ byId, byKapsoNumber }) => (isUnassigned ? byId.values().next().value : byKapsoNumber.get(phoneNumberId))),
      );
    },
    async ofWorkspace(workspaceId) {
      return of(workspaceId === null ? undefined : await directory.find(({ byId }) => byId.get(workspaceId)));
    },
  };
}

/** What the model watch needs of each workspace. */
export function watchedWorkspaces(services: ServicesByWorkspace, directory: WorkspaceDirectory) {
  return async (phoneNumberId: string): Promise<WatchedWorkspace> => {
    const { models } = await services.ofNumber(phoneNumberId);
    const workspace = await directory.find(({ byKapsoNumber }) => byKapsoNumber.get(phoneNumberId));
    return { models, hasOwnWhatsApp: workspace?.credentials.kapsoApiKey !== undefined };
  };
}

function servicesOf(settings: Settings, credentials: Partial<KnownWorkspace['credentials']>): WorkspaceServices {
  const isReal = whatsAppState(settings) === 'real';
  return {
    kapso: credentials.kapsoApiKey === null ? unreadableKapso() : kapsoClient(settings),
    isReal,
    vapi: credentials.vapiApiKey === null ? unreadableVapi() : vapiClient(settings),
    tellsConversations: !(callsState(settings) === 'simulated' && isReal),
    models: createLanguageModels(settings),
    timeZone: settings.TIME_ZONE,
  };
}

function kapsoClient({ KAPSO_API_KEY: apiKey, KAPSO_BASE_URL: baseUrl }: Settings): KapsoClient {
  return apiKey === undefined ? unconfiguredKapso() : createKapsoClient({ baseUrl, apiKey, timeoutMs: SEND_TIMEOUT_MS });
}

function vapiClient(settings: Settings): VapiClient {
  const server = callServer(settings);
  return createVapiClient({
    baseUrl: settings.VAPI_BASE_URL,
    // Without a key the API accepts no calls; for a call from before the key was removed, Vapi rejects the requests.
    apiKey: settings.VAPI_API_KEY ?? '',
    dialTimeoutMs: DIAL_TIMEOUT_MS,
    timeoutMs: ASK_TIMEOUT_MS,
    ...(server ? { server } : {}),
  });
}
