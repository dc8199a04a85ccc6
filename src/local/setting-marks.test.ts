import { differingSettings, markSettings } from './setting-marks';

const SECRET = 'a-secret-0123456789';
const STARTED = { KAPSO_API_KEY: SECRET, OPENAI_API_KEY: SECRET, AI_ENABLED: 'true', PORT: '3000', OTHER_API_KEY: SECRET };

test('when a terminal has the same settings, then none differs; what does not matter may differ, and an empty one is not set', () => {
  expect(differingSettings(markSettings(STARTED), { ...STARTED, PORT: '4000', OTHER_API_KEY: '', VAPI_API_KEY: ' ' })).toEqual([]);
});

test('when settings are missing, added or changed, then they are named', () => {
  const other = { ...STARTED, KAPSO_API_KEY: undefined, VAPI_API_KEY: SECRET, AI_ENABLED: 'false' };
  expect(differingSettings(markSettings(STARTED), other).sort()).toEqual(['AI_ENABLED', 'KAPSO_API_KEY', 'VAPI_API_KEY']);
});

test('when settings are marked, then no value is in the marks, and equal values of two starts do not look alike', () => {
  const marks = markSettings(STARTED);
  expect(JSON.stringify(marks)).not.toContain(SECRET);
  expect(Object.keys(marks.hashes).sort()).toEqual(['AI_ENABLED', 'KAPSO_API_KEY', 'OPENAI_API_KEY']);
  expect(markSettings(STARTED).hashes.KAPSO_API_KEY).not.toBe(marks.hashes.KAPSO_API_KEY);
});
