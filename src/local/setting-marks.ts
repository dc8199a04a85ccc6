/** Compares the settings of a terminal with those of the running `npm start`, of which running.json has no values. */
import { createHmac, randomBytes } from 'node:crypto';
import { settingsSchema } from '../platform/config';

type Environment = Record<string, string | undefined>;

/** The names of the settings that were set, each with a salted hash of its value. */
export interface SettingMarks {
  salt: string;
  hashes: Record<string, string>;
}

/** The settings that decide what is real, and who answers. */
const COMPARED = Object.keys(settingsSchema.shape).filter((name) =>
  /^(KAPSO|VAPI|AI)_|_(API_KEY|BASE_URL)$|^(CHATBOT_ENABLED|SEALION_URL|PUBLIC_URL)$/.test(name),
);

/** Marks the settings in an environment. As in `readSettings`, an empty value counts as not set. */
export function markSettings(environment: Environment, salt = randomBytes(16).toString('hex')): SettingMarks {
  const marked = COMPARED.flatMap((name) => {
    const value = environment[name]?.trim();
    return value ? [[name, createHmac('sha256', salt).update(value).digest('hex')]] : [];
  });
  return { salt, hashes: Object.fromEntries(marked) };
}

/** The names of the settings that `environment` does not have as they were marked. */
export function differingSettings({ salt, hashes }: SettingMarks, environment: Environment): string[] {
  const { hashes: own } = markSettings(environment, salt);
  return COMPARED.filter((name) => own[name] !== hashes[name]);
}
