/**
 * Settings: the schema of the environment variables, and the only code that reads them.
 * `.env.example` documents every setting; a test keeps the two in step.
 */
import { existsSync, readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { resolve } from 'node:path';
import { parseEnv } from 'node:util';
import { z } from 'zod';
import { phoneSchema } from './phone';

const flag = z
  .enum(['true', 'false', '1', '0', 'yes', 'no', 'on', 'off'], { error: 'must be true or false' })
  .transform((value) => ['true', '1', 'yes', 'on'].includes(value));
const port = z.coerce.number({ error: 'must be a port number' }).int().min(1).max(65_535);
const httpUrl = z.url({ protocol: /^https?$/, error: 'must be an http(s) URL' }).transform((url) => url.replace(/\/+$/, ''));
const commaList = z.string().transform((value) =>
  value
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== ''),
);
/** `host` or `host:port`, without a scheme or a path; IPv6 in brackets. */
const hostList = commaList.superRefine((entries, context) => {
  for (const entry of entries) {
    if (/^(\[[\da-fA-F:.]+\]|[^\s:/@[\]]+)(:\d{1,5})?$/.test(entry) && URL.canParse(`https://${entry}`)) continue;
    context.addIssue({ code: 'custom', message: `"${entry}" is not a host; write host or host:port` });
  }
});
const UNREADABLE_LOGIN = 'has a user or password that cannot be read: write % as %25';
/** `host:port` counts as http://, as with other programs. */
const proxyUrl = z
  .string()
  .transform((text) => (text.includes('://') ? text : `http://${text}`))
  .pipe(z.url({ protocol: /^https?$/, error: 'must be the http(s) URL of a proxy' }))
  .refine((url) => isDecodable(url, ({ username, password }) => username + password), UNREADABLE_LOGIN);

function hasLogin(url: string): boolean {
  if (!URL.canParse(url)) return false;
  const { username, password } = new URL(url);
  return username !== '' || password !== '';
}

/** Whether each % in a part of a URL begins an encoded character. True for text that is not a URL, which is reported separately. */
function isDecodable(url: string, partOf: (url: URL) => string): boolean {
  if (!URL.canParse(url)) return true;
  try {
    decodeURIComponent(partOf(new URL(url)));
    return true;
  } catch {
    return false;
  }
}
const databaseUrl = z
  .url({ protocol: /^postgres(ql)?$/, error: 'must be a postgres:// URL' })
  .refine((url) => isDecodable(url, ({ username, password }) => username + password), UNREADABLE_LOGIN)
  .refine((url) => isDecodable(url, ({ pathname }) => pathname), 'has a database name that cannot be read: write % as %25');
/** A key of Standard Webhooks. */
const signingSecret = z.string().regex(/^whsec_[A-Za-z0-9+/]{32,}={0,2}$/, 'must be whsec_ followed by at least 24 bytes in base64');
/** 32 bytes each, in base64 or hex. */
const encryptionKeys = commaList.transform((entries, context) =>
  entries.map((entry) => {
    const key = Buffer.from(entry, /^[\da-f]{64}$/i.test(entry) ? 'hex' : 'base64');
    if (key.length !== 32 || !/^[\w+/=-]+$/.test(entry))
      context.addIssue({ code: 'custom', message: 'must be 32 random bytes in base64 or hex, such as `openssl rand -base64 32` prints' });
    return key;
  }),
);
/** An id issued by a provider. */
const providerId = z.string().regex(/^[\w.-]{1,64}$/, 'must be an id: letters, digits, "_", "." or "-"');
const headerName = z
  .string()
  .regex(/^[\w-]{1,64}$/, 'must be a header name')
  .toLowerCase();
/** What Temporal takes as the name of a deployment or a build id: no separator of the two in the name, no reserved beginning. */
const deploymentName = z.string().regex(/^(?!__)[\w-]{1,64}$/, 'must be a name of letters, digits, - and _');
const buildId = z.string().regex(/^(?!__)[\w.+-]{1,64}$/, 'must be an id of letters, digits, ., +, - and _');
const seconds = (max: number) => z.coerce.number({ error: 'must be a number of seconds' }).int().min(1).max(max);
const days = z.coerce
  .number({ error: 'must be a number of days' })
  .int()
  .min(1, 'must be at least 1 day')
  .max(3_650, 'must be at most 3650 days');
const milliseconds = (max: number, min = 0) =>
  z.coerce
    .number({ error: 'must be a number of milliseconds' })
    .int('must be a whole number of milliseconds')
    .min(min, `must be at least ${min}`)
    .max(max, `must be at most ${max}`);

/** Fractions are accepted. A week is longer than anybody means. */
const minutes = z.coerce
  .number({ error: 'must be a number of minutes' })
  .positive('must be more than 0')
  .max(7 * 24 * 60, 'must be at most 10080');

/** `{"en": "…"}`: texts of at most 4096 characters by language. */
const textsByLanguage = z
  .string()
  .transform((text, context) => {
    try {
      return JSON.parse(text) as unknown;
    } catch {
      context.addIssue({ code: 'custom', message: 'must be JSON such as {"en": "A colleague will write to you."}' });
      return z.NEVER;
    }
  })
  .pipe(
    z.record(z.string().regex(/^[a-z]{2,3}$/), z.string().trim().min(1).max(4_096), {
      error: 'must be JSON such as {"en": "A colleague will write to you."}: language codes with texts of at most 4096 characters',
    }),
  );

/** The supported model providers, in the order of the default chain. All speak the OpenAI chat protocol. */
export const PROVIDER_NAMES = ['deepseek', 'openai', 'anthropic', 'grok', 'sealion', 'sandbox'] as const;
export type ProviderName = (typeof PROVIDER_NAMES)[number];

/** `default` means every provider that has a key; it also resets an earlier choice. */
const providerChain = commaList
  .transform((entries) => (entries.join() === 'default' ? [] : entries))
  .superRefine((entries, context) => {
    for (const entry of entries) {
      const name = entry.split(':')[0] ?? '';
      if (!(PROVIDER_NAMES as readonly string[]).includes(name)) {
        context.addIssue({
          code: 'custom',
          message: `"${entry}" names an unknown provider (known: ${PROVIDER_NAMES.join(', ')}); write provider:model`,
        });
      }
    }
  });

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;

/** Timeout of a request to a model. */
const modelTimeout = (max: number) => milliseconds(max, 1_000);

/** An IANA name, in any letter case. Offsets, which some versions of Node accept, are refused: they have no daylight saving time. */
export const timeZoneSchema = z
  .string()
  .refine((name) => /^[a-z]/i.test(name) && isTimeZone(name), 'must be a time zone such as Europe/Berlin');

function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: name });
    return true;
  } catch {
    return false;
  }
}

/** Ollama serves the OpenAI protocol under /v1, but people configure its bare URL. */
const ollamaUrl = httpUrl.transform((url) => (new URL(url).pathname === '/' ? `${url}/v1` : url));

/** A dotted number that is no IP address is a typing error, not a name. */
function isHost(host: string): boolean {
  return isIP(host) !== 0 || (/^[a-z0-9-]+(\.[a-z0-9-]+)*$/i.test(host) && !/^[\d.]+$/.test(host));
}

/** The providers' real URLs. */
export const DEFAULT_KAPSO_URL = 'https://api.kapso.ai';
export const DEFAULT_VAPI_URL = 'https://api.vapi.ai';

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;

export const settingsSchema = z.object({
  PORT: port.default(3000),
  HOST: z.string().refine(isHost, 'must be an IP address or a host name').optional(),
  DATABASE_URL: databaseUrl.optional(),
  DATA_DIR: z
    .string()
    .default('.data')
    .transform((dir) => resolve(dir)),
  LOG_LEVEL: z.enum(LOG_LEVELS, { error: `must be one of ${LOG_LEVELS.join(', ')}` }).default('info'),
  LOG_FILE_MAX_MB: z.coerce.number({ error: 'must be a number of megabytes' }).min(1, 'must be at least 1').max(10_000).default(10),
  DEBUG_WEBHOOK: flag.default(false),
  API_KEYS: commaList.default([]),
  ENCRYPTION_KEY: encryptionKeys.default([]),
  WORKER_HEALTH_PORT: port.optional(),
  WORKER_VERSIONING: flag.default(false),
  WORKER_DEPLOYMENT_NAME: deploymentName.default('parley'),
  WORKER_BUILD_ID: buildId.optional(),

  TEMPORAL_ADDRESS: z.string().optional(),
  TEMPORAL_NAMESPACE: z.string().optional(),
  TEMPORAL_API_KEY: z.string().optional(),
  TEMPORAL_TASK_QUEUE: z.string().default('parley'),
  TEMPORAL_CLI_PATH: z.string().optional(),
  TEMPORAL_PORT: port.default(7233),
  TEMPORAL_UI_PORT: port.default(8233),
  POSTGRES_PORT: port.default(5433),
  SANDBOX_PORT: port.default(3900),
  SANDBOX_URL: httpUrl.optional(),
  WEBHOOK_TARGET_URL: httpUrl.optional(),

  KAPSO_API_KEY: z.string().optional(),
  KAPSO_BASE_URL: httpUrl.default(DEFAULT_KAPSO_URL),
  KAPSO_PHONE_NUMBER_ID: providerId.optional(),
  KAPSO_WEBHOOK_SECRET: commaList.default([]),
  KAPSO_WEBHOOK_TOKEN: z.string().optional(),
  REPAIR_MINUTES: z.coerce.number({ error: 'must be a number of minutes' }).int().min(0).max(1_440).default(5),
  KAPSO_RESUME_WEBHOOK: flag.default(false),
  KAPSO_READS_PER_MINUTE: z.coerce.number({ error: 'must be a number of requests' }).int().min(1).max(100_000).default(50),

  CHATBOT_ENABLED: flag.optional(),
  AI_ENABLED: flag.optional(),
  AI_PROVIDERS: providerChain.optional(),
  AI_SYSTEM_PROMPT: z.string().optional(),
  REPLY_QUIET_MS: milliseconds(10 * MINUTE_MS).optional(),
  REPLY_QUIET_MAX_MS: milliseconds(10 * MINUTE_MS).optional(),
  SESSION_TIMEOUT_MS: milliseconds(7 * DAY_MS).optional(),
  SEND_CONFIRM_MS: milliseconds(10 * MINUTE_MS, 1_000).optional(),
  UNDELIVERED_AFTER_MINUTES: z.coerce
    .number({ error: 'must be a number of minutes' })
    .int('must be a whole number of minutes')
    .min(0, 'must be at least 0')
    .max(30 * 24 * 60, 'must be at most 43200 (30 days)')
    .default(240),
  ON_NEW_MESSAGE: z.enum(['restart', 'finish'], { error: 'must be restart or finish' }).optional(),
  OWNER_PAUSE_MINUTES: minutes.optional(),
  PERSON_WAIT_MINUTES: minutes.optional(),
  HAND_OVER_TEXTS: textsByLanguage.optional(),

  TIME_ZONE: timeZoneSchema.default(() => Intl.DateTimeFormat().resolvedOptions().timeZone),
  MODEL_TIMEOUT_MS: modelTimeout(5 * MINUTE_MS).default(30_000),
  // At most as long as WhatsApp accepts a reply.
  ANSWER_WITHIN_HOURS: z.coerce.number({ error: 'must be a number of hours' }).int().min(1).max(24).default(12),
  REPLIES_PER_HOUR: z.coerce.number({ error: 'must be a number of replies' }).int().min(1).max(1_000).default(60),
  // Bounded by the workflow history: an hour of retries with six providers is about 8,000 events.
  TURN_TIMEOUT_MS: milliseconds(60 * MINUTE_MS, 1_000).default(15 * MINUTE_MS),
  DEEPSEEK_API_KEY: z.string().optional(),
  DEEPSEEK_BASE_URL: httpUrl.default('https://api.deepseek.com/v1'),
  DEEPSEEK_TIMEOUT_MS: modelTimeout(15 * MINUTE_MS).optional(),
  OPENAI_API_KEY: z.string().optional(),
  OPENAI_BASE_URL: httpUrl.default('https://api.openai.com/v1'),
  OPENAI_TIMEOUT_MS: modelTimeout(15 * MINUTE_MS).optional(),
  ANTHROPIC_API_KEY: z.string().optional(),
  ANTHROPIC_BASE_URL: httpUrl.default('https://api.anthropic.com/v1'),
  ANTHROPIC_TIMEOUT_MS: modelTimeout(15 * MINUTE_MS).optional(),
  GROK_API_KEY: z.string().optional(),
  GROK_BASE_URL: httpUrl.default('https://api.x.ai/v1'),
  GROK_TIMEOUT_MS: modelTimeout(15 * MINUTE_MS).optional(),
  SEALION_URL: ollamaUrl.optional(),
  SEALION_TIMEOUT_MS: modelTimeout(15 * MINUTE_MS).optional(),
  VAPI_API_KEY: z.string().optional(),
  VAPI_BASE_URL: httpUrl.default(DEFAULT_VAPI_URL),
  VAPI_ASSISTANT_ID: providerId.optional(),
  VAPI_PHONE_NUMBER_ID: providerId.optional(),
  VAPI_WEBHOOK_AUTH: z.enum(['secret', 'bearer', 'hmac'], { error: 'must be secret, bearer or hmac' }).default('secret'),
  VAPI_WEBHOOK_SECRET: commaList.default([]),
  VAPI_HMAC_HEADER: headerName.default('x-signature'),
  VAPI_HMAC_TIMESTAMP_HEADER: headerName.default('x-timestamp'),
  VAPI_HMAC_PREFIX: z.string().default(''),
  VAPI_HMAC_ENCODING: z.enum(['hex', 'base64'], { error: 'must be hex or base64' }).default('hex'),
  VAPI_HMAC_ALGORITHM: z.enum(['sha256', 'sha512', 'sha1'], { error: 'must be sha256, sha512 or sha1' }).default('sha256'),
  VAPI_HMAC_SECRET_ENCODING: z.enum(['text', 'base64'], { error: 'must be text or base64' }).default('text'),
  VAPI_HMAC_TOLERANCE_SECONDS: seconds(24 * 60 * 60).default(300),
  VAPI_INBOUND_ASSISTANT_ID: providerId.optional(),
  VAPI_TRANSFER_NUMBER: phoneSchema.optional(),
  PUBLIC_URL: httpUrl.optional(),
  CALL_REPORT_GRACE_SECONDS: seconds(60 * 60).default(90),
  CALL_RING_TIMEOUT_SECONDS: seconds(60 * 60).default(120),
  CALL_RETENTION_DAYS: days.default(90),
  CALL_RETENTION_ACTION: z.enum(['archive', 'delete', 'keep'], { error: 'must be archive, delete or keep' }).default('archive'),
  DEAD_LETTER_RETENTION_DAYS: days.default(90),
  STATUS_EVENT_RETENTION_DAYS: days.default(90),
  CALL_EVENT_RETENTION_DAYS: days.default(365),
  PARKED_MESSAGE_RETENTION_DAYS: days.default(90),
  AUDIT_RETENTION_DAYS: days.default(730),
  SPOOL_RETENTION_DAYS: days.default(7),
  CALL_FOLLOW_UP_TEXT: z.string().max(4_096).optional(),
  CALLBACK_ALLOWED_HOSTS: hostList.default([]),
  CALLBACK_SIGNING_SECRET: signingSecret.optional(),
  CALLBACK_KESTRA_AUTHORIZATION: z.string().optional(),

  ALERT_WEBHOOK_URL: httpUrl.refine((url) => !hasLogin(url), 'must not contain a user or password').optional(),
  ALERT_WEBHOOK_INTERNAL: flag.default(false),
  ALERT_SIGNING_SECRET: signingSecret.optional(),
  ALERT_WHATSAPP_TO: phoneSchema.optional(),
  ALERT_WHATSAPP_TEMPLATE: z
    .string()
    .regex(/^[a-z0-9_]{1,512}$/, 'must be the name of a template: a-z, 0-9 and _')
    .optional(),
  ALERT_WHATSAPP_LANGUAGE: z
    .string()
    .regex(/^[a-z]{2,3}(_[A-Z]{2})?$/, 'must be the language code of the template, such as en or pt_BR')
    .default('en'),

  UNSIGNED_WEBHOOK_RATE_LIMIT_PER_MINUTE: z.coerce.number({ error: 'must be a number' }).int().min(1).default(600),
  API_RATE_LIMIT_PER_MINUTE: z.coerce.number({ error: 'must be a number' }).int().min(1).default(1_200),
  TRUST_PROXY_HOPS: z.coerce.number({ error: 'must be a number' }).int().min(0).max(10).default(0),

  HTTP_PROXY: proxyUrl.optional(),
  HTTPS_PROXY: proxyUrl.optional(),
  NO_PROXY: z
    .string()
    .transform((text) => text.split(/[\s,]+/).filter((entry) => entry !== ''))
    .default([]),
});

export type Settings = z.output<typeof settingsSchema>;

/** The proxies for outgoing requests; see src/platform/proxies.ts. */
export type ProxySettings = Pick<Settings, 'HTTP_PROXY' | 'HTTPS_PROXY' | 'NO_PROXY'>;

/** Adds the checks that involve more than one setting. */
const consistentSettingsSchema = settingsSchema
  .refine(({ REPLY_QUIET_MS = 0, REPLY_QUIET_MAX_MS = Number.POSITIVE_INFINITY }) => REPLY_QUIET_MS <= REPLY_QUIET_MAX_MS, {
    path: ['REPLY_QUIET_MAX_MS'],
    error: 'must not be smaller than REPLY_QUIET_MS',
  })
  .refine(({ ALERT_WEBHOOK_URL: url, ALERT_WEBHOOK_INTERNAL: mayBeInternal }) => url === undefined || mayBeInternal || isPlainHttps(url), {
    path: ['ALERT_WEBHOOK_URL'],
    error: 'must begin with https:// and name no port, unless ALERT_WEBHOOK_INTERNAL=true',
  })
  .refine(({ ALERT_WHATSAPP_TO: to, ALERT_WHATSAPP_TEMPLATE: template }) => (to === undefined) === (template === undefined), {
    path: ['ALERT_WHATSAPP_TEMPLATE'],
    error: 'must be set together with ALERT_WHATSAPP_TO',
  })
  .refine(({ ALERT_WHATSAPP_TO: to, KAPSO_PHONE_NUMBER_ID: from }) => to === undefined || from !== undefined, {
    path: ['KAPSO_PHONE_NUMBER_ID'],
    error: 'is not set; alerts to ALERT_WHATSAPP_TO are sent from this number',
  });

function isPlainHttps(text: string): boolean {
  const { protocol, port } = new URL(text);
  return protocol === 'https:' && port === '';
}

/** Invalid settings: one problem per setting, never with the value, which may be a secret. */
export class SettingsError extends Error {
  override name = 'SettingsError';
  constructor(readonly problems: string[]) {
    super(`These settings are invalid:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`);
  }
}

/**
 * Reads the settings. An empty value counts as not set, so that a copy of `.env.example` works.
 * @throws SettingsError that lists every problem
 */
export function readSettings(environment: Record<string, string | undefined>): Settings {
  const present = Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== undefined && value.trim() !== ''));
  const parsed = consistentSettingsSchema.safeParse({ ...present, ...proxyVariables(environment) });
  if (parsed.success) return parsed.data;
  // One problem per setting is enough.
  const problems = new Map(parsed.error.issues.toReversed().map((issue) => [issue.path.join('.'), issue.message]));
  throw new SettingsError([...problems].reverse().map(([name, message]) => `${name}: ${message}`));
}

/** The proxies' variables in upper case. As in other programs, `https_proxy` wins over `HTTPS_PROXY`; both `NO_PROXY` lists count. */
function proxyVariables(environment: Record<string, string | undefined>): Record<string, string> {
  const valuesOf = (name: string) => [environment[name.toLowerCase()], environment[name]].flatMap((value) => value?.trim() || []);
  const [httpProxy] = valuesOf('HTTP_PROXY');
  const [httpsProxy] = valuesOf('HTTPS_PROXY');
  const exceptions = valuesOf('NO_PROXY');
  return {
    ...(httpProxy === undefined ? {} : { HTTP_PROXY: httpProxy }),
    ...(httpsProxy === undefined ? {} : { HTTPS_PROXY: httpsProxy }),
    ...(exceptions.length === 0 ? {} : { NO_PROXY: exceptions.join(',') }),
  };
}

/** The proxies in an environment. @throws SettingsError */
export function readProxies(environment: Record<string, string | undefined>): ProxySettings {
  const { HTTP_PROXY, HTTPS_PROXY, NO_PROXY } = readSettings(proxyVariables(environment));
  return { HTTP_PROXY, HTTPS_PROXY, NO_PROXY };
}

/** The proxies of this process. Not passed around, so that no outgoing request can forget them. @throws SettingsError */
export function proxiesOfProcess(): ProxySettings {
  // biome-ignore lint/style/noProcessEnv: the settings of this process
  return readProxies(process.env);
}

/** As names and single addresses, because libraries and child processes that read the variables themselves may not support ranges. */
const THIS_MACHINE = ['localhost', '127.0.0.1', '::1'];

/** Loads `.env` into the environment; variables that are already set win. Adds this machine to NO_PROXY. */
export function loadEnvFile(): void {
  if (existsSync('.env')) process.loadEnvFile('.env');
  const { env } = process;
  if (!['http_proxy', 'https_proxy', 'all_proxy', 'grpc_proxy'].some((name) => env[name] || env[name.toUpperCase()])) return;
  for (const name of ['no_proxy', 'NO_PROXY']) env[name] = [env.no_proxy, env.NO_PROXY, ...THIS_MACHINE].filter(Boolean).join(',');
}

/** Names in `.env` that are for other programs: Compose, Temporal's environment configuration, Node, and the proxies in lower case. */
const NAMES_OF_OTHERS =
  /^(?:(?:COMPOSE|DOCKER|TEMPORAL|NODE)_[A-Z0-9_]+|TZ|POSTGRES_PASSWORD|PARLEY_DB_PASSWORD|API_PUBLISH|PARLEY_VERSION|(?:https?|no|all|grpc)_proxy)$/;

/** One sentence for each name in the text of a `.env` file that is not a setting and has no effect. Never contains the value. */
export function findStraySettings(envFile: string): string[] {
  const known = Object.keys(settingsSchema.shape);
  const letters = (name: string) => name.replace(/[^a-z0-9]/gi, '').toUpperCase();
  return Object.keys(parseEnv(envFile)).flatMap((name) => {
    if (known.includes(name) || NAMES_OF_OTHERS.test(name)) return [];
    // A line without "=" becomes part of the next one's name. It may be a value that was cut off.
    if (/\s/.test(name)) return [`.env: ${name.split(/\s+/).at(-1)} has no effect, because the line before it has no =`];
    const meant = known.find((setting) => letters(setting) === letters(name));
    return [`.env: ${name} is not a setting and has no effect; ${meant ? `did you mean ${meant}?` : '.env.example has them all'}`];
  });
}

/** `findStraySettings` of this folder's `.env`. */
export function straySettings(): string[] {
  return existsSync('.env') ? findStraySettings(readFileSync('.env', 'utf8')) : [];
}

/** Kapso's id of the number that the sandbox simulates. */
export const SANDBOX_PHONE_NUMBER_ID = '100000000000001';

/** The API key that `npm start` gives its processes for the simulated services. */
export const SANDBOX_API_KEY = 'sandbox';

/** Whether a channel is not configured, simulated by the sandbox, or reaches real people. */
export type ChannelState = 'off' | 'simulated' | 'real';

/** WhatsApp's state. A test double or a proxy other than the sandbox counts as real. */
export function whatsAppState(settings: Pick<Settings, 'KAPSO_API_KEY' | 'KAPSO_BASE_URL' | 'SANDBOX_URL'>): ChannelState {
  if (settings.KAPSO_API_KEY === undefined) return 'off';
  return isSandbox(settings.KAPSO_BASE_URL, settings) ? 'simulated' : 'real';
}

/** The state of voice calls, as for WhatsApp. */
export function callsState(settings: Pick<Settings, 'VAPI_API_KEY' | 'VAPI_BASE_URL' | 'SANDBOX_URL'>): ChannelState {
  if (settings.VAPI_API_KEY === undefined) return 'off';
  return isSandbox(settings.VAPI_BASE_URL, settings) ? 'simulated' : 'real';
}

function isSandbox(url: string, { SANDBOX_URL }: Pick<Settings, 'SANDBOX_URL'>): boolean {
  return SANDBOX_URL !== undefined && new URL(url).origin === new URL(SANDBOX_URL).origin;
}

type RequiredSetting = 'DATABASE_URL' | 'KAPSO_API_KEY' | 'KAPSO_WEBHOOK_SECRET' | 'VAPI_WEBHOOK_SECRET' | 'WEBHOOK_TARGET_URL';

/** The settings of WhatsApp, and why each is needed. If none is set, WhatsApp is off. */
const WHATSAPP_SETTINGS = {
  KAPSO_API_KEY: 'without it, nothing can be sent',
  KAPSO_WEBHOOK_SECRET: 'without it, anybody could send messages to the webhook',
  KAPSO_PHONE_NUMBER_ID: 'it says which number is yours',
} as const;
const WHATSAPP_NAMES = Object.keys(WHATSAPP_SETTINGS) as (keyof typeof WHATSAPP_SETTINGS)[];

/**
 * Checks that WhatsApp is off, or that `name`, which the process needs, is set: a half-configured channel is a mistake.
 * @throws SettingsError
 */
export function requireWhatsAppSetting(settings: Settings, name: 'KAPSO_API_KEY' | 'KAPSO_WEBHOOK_SECRET'): void {
  if (!hasWhatsApp(settings) || isGiven(settings[name])) return;
  throw new SettingsError([missingWhatsAppSetting(settings, name)]);
}

/** Whether any setting of WhatsApp is set; the API and the worker need different ones. */
export function hasWhatsApp(settings: Pick<Settings, keyof typeof WHATSAPP_SETTINGS>): boolean {
  return WHATSAPP_NAMES.some((name) => isGiven(settings[name]));
}

/** Checks that WhatsApp is off or has all its settings. @throws SettingsError that lists those missing */
export function requireWhatsAppSettings(settings: Settings): void {
  const missing = WHATSAPP_NAMES.filter((name) => !isGiven(settings[name]));
  if (missing.length === WHATSAPP_NAMES.length) return;
  if (missing.length > 0) throw new SettingsError(missing.map((name) => missingWhatsAppSetting(settings, name)));
}

function missingWhatsAppSetting(settings: Settings, name: keyof typeof WHATSAPP_SETTINGS): string {
  const given = WHATSAPP_NAMES.filter((each) => isGiven(settings[each]));
  return `${name}: is not set, but ${given.join(' and ')} ${given.length > 1 ? 'are' : 'is'}; ${WHATSAPP_SETTINGS[name]}`;
}

function isGiven(value: unknown): boolean {
  return value !== undefined && !(Array.isArray(value) && value.length === 0);
}

/** Checks that each setting named in `reasons` is set; the error message gives the reason. @throws SettingsError */
export function requireSettings<K extends RequiredSetting>(
  settings: Settings,
  reasons: Record<K, string>,
): Settings & { [P in K]-?: NonNullable<Settings[P]> } {
  const missing = (Object.keys(reasons) as K[]).filter((name) => !isGiven(settings[name]));
  if (missing.length > 0) throw new SettingsError(missing.map((name) => `${name}: is not set; ${reasons[name]}`));
  return settings as Settings & { [P in K]-?: NonNullable<Settings[P]> };
}
