import { PROVIDER_NAMES, readSettings, settingsSchema } from '../../platform/config';
import { requestTimeouts, timeoutSetting } from './timeouts';

const timeouts = (environment: Record<string, string> = {}) => requestTimeouts(readSettings(environment));

test('when nothing is set, then all have the same timeout, except that a local model has more', () => {
  expect(timeouts()).toMatchObject({
    deepseek: 30_000,
    openai: 30_000,
    anthropic: 30_000,
    grok: 30_000,
    sealion: 120_000,
    sandbox: 30_000,
  });
  expect(timeouts({ MODEL_TIMEOUT_MS: '5000' })).toMatchObject({ openai: 5_000, sealion: 120_000 });
  expect(timeouts({ MODEL_TIMEOUT_MS: '200000' })).toMatchObject({ openai: 200_000, sealion: 200_000 });
});

test.each(PROVIDER_NAMES)('when the setting of %s is set, then it applies to this provider only', (provider) => {
  const setting = timeoutSetting(provider);
  expect(settingsSchema.shape).toHaveProperty(setting);
  const set = timeouts({ [setting]: '45000' });
  expect(set[provider]).toBe(45_000);
  if (provider !== 'sandbox') expect({ ...set, [provider]: 0 }).toEqual({ ...timeouts(), [provider]: 0 });
});
