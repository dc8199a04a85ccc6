/** Compares the settings of a terminal with those of the running `npm start`. running.json has only their hashes, because values may be secret. */
import { createHmac, randomBytes } from 'node:crypto';
import { settingsSchema } from '../platform/config';

type Environment = Record<string, string | undefined>;

/** The names of the settings that were set, each with a salted hash of its value. */
export interface SettingFingerprints {
  salt: string;
  hashes: Record<string, string>;
}

/** The settings that decide what is real, and whether and how messages are answered. */
const COMPARED = Object.keys(settingsSchema.shape).filter((name) =>
  /^(KAPSO|VAPI|AI)_|_(API_KEY|BASE_URL)$|^(CHATBOT_ENABLED|SEALION_URL|PUBLIC_URL)$/.test(name),
);

/** The fingerprints of the settings in an environment. As in `readSettings`, an empty value counts as not set. */
export function fingerprintSettings(environment: Environment, salt = randomBytes(16).toString('hex')): SettingFingerprints {
  const hashes = COMPARED.flatMap((name) => {
    const value = environment[name]?.trim();
    return value ? [[name, createHmac('sha256', salt).update(value).digest('hex')]] : [];
  });
  return { salt, hashes: Object.fromEntries(hashes) };
}

/** The names of the settings whose values in `environment` differ from those of the fingerprints. */
export function differingSettings({ salt, hashes }: SettingFingerprints, environment: Environment): string[] {
  const { hashes: own } = fingerprintSettings(environment, salt);
  return COMPARED.filter((name) => own[name] !== hashes[name]);
}
