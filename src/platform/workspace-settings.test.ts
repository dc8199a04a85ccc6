import { callsState, readSettings, whatsAppState } from './config';
import { settingsOfWorkspace, type WorkspaceChoices, type WorkspaceCredentials } from './workspace-settings';

const SANDBOX = 'http://127.0.0.1:3900';
const simulated = readSettings({
  ...{ SANDBOX_URL: SANDBOX, KAPSO_BASE_URL: SANDBOX, VAPI_BASE_URL: `${SANDBOX}/vapi`, KAPSO_API_KEY: 'sandbox', VAPI_API_KEY: 'sandbox' },
  ...{ KAPSO_WEBHOOK_SECRET: 'of-the-sandbox', VAPI_WEBHOOK_SECRET: 'of-the-sandbox', KAPSO_PHONE_NUMBER_ID: '1' },
});
const real = readSettings({
  ...{ KAPSO_API_KEY: 'common', VAPI_API_KEY: 'common', KAPSO_WEBHOOK_SECRET: 'common-secret', VAPI_WEBHOOK_SECRET: 'common-secret' },
  ...{ VAPI_ASSISTANT_ID: 'common-assistant', VAPI_PHONE_NUMBER_ID: 'common-number', VAPI_TRANSFER_NUMBER: '+15550100' },
  ...{ VAPI_INBOUND_ASSISTANT_ID: 'common-inbound', KAPSO_PHONE_NUMBER_ID: '1', TIME_ZONE: 'UTC', OPENAI_API_KEY: 'common-model' },
});

function choices(credentials: WorkspaceCredentials = {}, others: Partial<WorkspaceChoices> = {}): WorkspaceChoices {
  return { kapsoPhoneNumberId: '2', vapiPhoneNumberId: null, vapiAssistantId: null, timeZone: null, credentials, ...others };
}

test('when a workspace sets nothing itself, then the environment applies, with its own number', () => {
  expect(settingsOfWorkspace(real, choices())).toEqual({ ...real, KAPSO_PHONE_NUMBER_ID: '2' });
  expect(settingsOfWorkspace(simulated, choices())).toEqual({ ...simulated, KAPSO_PHONE_NUMBER_ID: '2' });
});

test('when a workspace has its own accounts, then nothing of the accounts of the environment is used', () => {
  const credentials = { kapsoApiKey: 'own', vapiApiKey: 'own', openaiApiKey: 'own-model', kapsoWebhookSecrets: ['own-secret'] };
  const own = settingsOfWorkspace(real, choices(credentials, { timeZone: 'Asia/Tokyo', vapiAssistantId: 'own-assistant' }));
  expect(own).toMatchObject({ KAPSO_API_KEY: 'own', VAPI_API_KEY: 'own', OPENAI_API_KEY: 'own-model', TIME_ZONE: 'Asia/Tokyo' });
  expect(own.KAPSO_WEBHOOK_SECRET).toEqual(['own-secret', 'common-secret']);
  expect(own).toMatchObject({ VAPI_ASSISTANT_ID: 'own-assistant', VAPI_PHONE_NUMBER_ID: undefined, VAPI_TRANSFER_NUMBER: undefined });
  expect(own.VAPI_INBOUND_ASSISTANT_ID).toBeUndefined();
});

test('when a workspace shares the account of the environment, then it may have its own number and assistant there', () => {
  const own = settingsOfWorkspace(real, choices({}, { vapiAssistantId: 'own-assistant', vapiPhoneNumberId: 'own-number' }));
  expect(own).toMatchObject({ VAPI_API_KEY: 'common', VAPI_ASSISTANT_ID: 'own-assistant', VAPI_PHONE_NUMBER_ID: 'own-number' });
  expect(own).toMatchObject({ VAPI_INBOUND_ASSISTANT_ID: 'own-assistant', VAPI_TRANSFER_NUMBER: '+15550100' });
});

test("when a credential cannot be decrypted, then the environment's does not take its place", () => {
  const own = settingsOfWorkspace(real, choices({ kapsoApiKey: null, vapiApiKey: null, openaiApiKey: null }));
  expect([own.KAPSO_API_KEY, own.VAPI_API_KEY, own.OPENAI_API_KEY]).toEqual([undefined, undefined, undefined]);
});

test.each<[string, WorkspaceCredentials, [string, string], object]>([
  ['nothing of its own', {}, ['simulated', 'simulated'], {}],
  ['a key of Kapso', { kapsoApiKey: 'own' }, ['real', 'off'], { KAPSO_BASE_URL: 'https://api.kapso.ai', KAPSO_WEBHOOK_SECRET: [] }],
  ['a key of Vapi', { vapiApiKey: 'own' }, ['off', 'real'], { VAPI_BASE_URL: 'https://api.vapi.ai', VAPI_WEBHOOK_SECRET: [] }],
  ['both', { kapsoApiKey: 'own', vapiApiKey: 'own' }, ['real', 'real'], {}],
])(
  'when everything is simulated and a workspace has %s, then its channels are as if the environment had it',
  (_what, credentials, states, rest) => {
    const own = settingsOfWorkspace(simulated, choices(credentials));
    expect([whatsAppState(own), callsState(own)]).toEqual(states);
    expect(own).toMatchObject(rest);
  },
);
