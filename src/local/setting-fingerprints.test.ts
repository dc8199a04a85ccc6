import { differingSettings, fingerprintSettings } from './setting-fingerprints';

const SECRET = 'a-secret-0123456789';
const STARTED = { KAPSO_API_KEY: SECRET, OPENAI_API_KEY: SECRET, AI_ENABLED: 'true', PORT: '3000', OTHER_API_KEY: SECRET };

test('when a terminal has the same settings, then none differs; what does not matter may differ, and an empty one is not set', () => {
  expect(differingSettings(fingerprintSettings(STARTED), { ...STARTED, PORT: '4000', OTHER_API_KEY: '', VAPI_API_KEY: ' ' })).toEqual([]);
});

test('when settings are missing, added or changed, then they are named', () => {
  const other = { ...STARTED, KAPSO_API_KEY: undefined, VAPI_API_KEY: SECRET, AI_ENABLED: 'false' };
  expect(differingSettings(fingerprintSettings(STARTED), other).sort()).toEqual(['AI_ENABLED', 'KAPSO_API_KEY', 'VAPI_API_KEY']);
});

test('when fingerprints are made, then they contain no value, and equal values of two starts have different ones', () => {
  const fingerprints = fingerprintSettings(STARTED);
  expect(JSON.stringify(fingerprints)).not.toContain(SECRET);
  expect(Object.keys(fingerprints.hashes).sort()).toEqual(['AI_ENABLED', 'KAPSO_API_KEY', 'OPENAI_API_KEY']);
  expect(fingerprintSettings(STARTED).hashes.KAPSO_API_KEY).not.toBe(fingerprints.hashes.KAPSO_API_KEY);
});
