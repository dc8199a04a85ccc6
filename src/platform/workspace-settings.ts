/** The settings that apply to one workspace: its own, or those of the environment. */
import { type ChannelState, callsState, DEFAULT_KAPSO_URL, DEFAULT_VAPI_URL, type Settings, whatsAppState } from './config';

/** The secrets of a workspace at its providers. `null`: it has one, but it cannot be decrypted; the environment's is no substitute. */
export interface WorkspaceCredentials {
  kapsoApiKey?: string | null;
  kapsoWebhookSecrets?: readonly string[] | null;
  vapiApiKey?: string | null;
  vapiWebhookSecrets?: readonly string[] | null;
  deepseekApiKey?: string | null;
  openaiApiKey?: string | null;
  anthropicApiKey?: string | null;
  grokApiKey?: string | null;
}

/** What a workspace sets itself; null: the environment's value applies. */
export interface WorkspaceChoices {
  kapsoPhoneNumberId: string | null;
  vapiPhoneNumberId: string | null;
  vapiAssistantId: string | null;
  timeZone: string | null;
  credentials: WorkspaceCredentials;
}

/**
 * The settings of a workspace. A key of its own reaches the real provider, also where the environment's service is simulated. As in the
 * environment (docs/decisions/0013), a workspace simulates both channels or none: with one real key, a simulated channel is off.
 */
export function settingsOfWorkspace(settings: Settings, choices: WorkspaceChoices): Settings {
  const { credentials, timeZone } = choices;
  const own: Settings = {
    ...settings,
    ...whatsAppOf(settings, choices),
    ...callsOf(settings, choices),
    TIME_ZONE: timeZone ?? settings.TIME_ZONE,
    DEEPSEEK_API_KEY: ownOr(credentials.deepseekApiKey, settings.DEEPSEEK_API_KEY),
    OPENAI_API_KEY: ownOr(credentials.openaiApiKey, settings.OPENAI_API_KEY),
    ANTHROPIC_API_KEY: ownOr(credentials.anthropicApiKey, settings.ANTHROPIC_API_KEY),
    GROK_API_KEY: ownOr(credentials.grokApiKey, settings.GROK_API_KEY),
  };
  const hasOwnAccount = credentials.kapsoApiKey !== undefined || credentials.vapiApiKey !== undefined;
  const states: ChannelState[] = [whatsAppState(own), callsState(own)];
  if (!hasOwnAccount || !states.includes('real')) return own;
  return {
    ...own,
    ...(whatsAppState(own) === 'simulated' ? { KAPSO_API_KEY: undefined } : {}),
    ...(callsState(own) === 'simulated' ? { VAPI_API_KEY: undefined } : {}),
  };
}

function whatsAppOf(settings: Settings, { kapsoPhoneNumberId, credentials }: WorkspaceChoices): Partial<Settings> {
  const { kapsoApiKey, kapsoWebhookSecrets } = credentials;
  const isOwn = kapsoApiKey !== undefined;
  const leavesSandbox = isOwn && whatsAppState(settings) === 'simulated';
  return {
    KAPSO_PHONE_NUMBER_ID: kapsoPhoneNumberId ?? undefined,
    KAPSO_API_KEY: ownOr(kapsoApiKey, settings.KAPSO_API_KEY),
    KAPSO_BASE_URL: leavesSandbox ? DEFAULT_KAPSO_URL : settings.KAPSO_BASE_URL,
    // The sandbox's secret proves a simulated customer.
    KAPSO_WEBHOOK_SECRET: [...(kapsoWebhookSecrets ?? []), ...(leavesSandbox ? [] : settings.KAPSO_WEBHOOK_SECRET)],
  };
}

function callsOf(settings: Settings, { vapiPhoneNumberId, vapiAssistantId, credentials }: WorkspaceChoices): Partial<Settings> {
  const { vapiApiKey, vapiWebhookSecrets } = credentials;
  const secrets = vapiWebhookSecrets ?? [];
  const sharesAccount = vapiApiKey === undefined;
  if (sharesAccount) {
    return {
      VAPI_WEBHOOK_SECRET: [...secrets, ...settings.VAPI_WEBHOOK_SECRET],
      VAPI_ASSISTANT_ID: vapiAssistantId ?? settings.VAPI_ASSISTANT_ID,
      VAPI_PHONE_NUMBER_ID: vapiPhoneNumberId ?? settings.VAPI_PHONE_NUMBER_ID,
      ...(vapiAssistantId === null ? {} : { VAPI_INBOUND_ASSISTANT_ID: vapiAssistantId }),
    };
  }
  // The environment's ids do not exist in another account.
  const leavesSandbox = callsState(settings) === 'simulated';
  return {
    VAPI_API_KEY: vapiApiKey ?? undefined,
    VAPI_BASE_URL: leavesSandbox ? DEFAULT_VAPI_URL : settings.VAPI_BASE_URL,
    // Each call tells Vapi the first one, and the environment's proves the events of every call.
    VAPI_WEBHOOK_SECRET: [...secrets],
    VAPI_ASSISTANT_ID: vapiAssistantId ?? undefined,
    VAPI_PHONE_NUMBER_ID: vapiPhoneNumberId ?? undefined,
    VAPI_INBOUND_ASSISTANT_ID: undefined,
    VAPI_TRANSFER_NUMBER: undefined,
  };
}

function ownOr(own: string | null | undefined, common: string | undefined): string | undefined {
  return own === undefined ? common : (own ?? undefined);
}
