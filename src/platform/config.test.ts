import { readFileSync } from 'node:fs';
import { findStraySettings, readSettings, requireSettings, requireWhatsAppSettings, SettingsError, settingsSchema } from './config';

const problemsOf = (environment: Record<string, string>): string[] => {
  try {
    readSettings(environment);
  } catch (error) {
    if (error instanceof SettingsError) return error.problems;
    throw error;
  }
  return [];
};

describe('settings', () => {
  test('when nothing is set, then the defaults apply', () => {
    const settings = readSettings({});
    expect(settings.PORT).toBe(3000);
    expect(settings.KAPSO_BASE_URL).toBe('https://api.kapso.ai');
    expect(settings.KAPSO_WEBHOOK_SECRET).toEqual([]);
    expect(settings.CHATBOT_ENABLED).toBeUndefined();
  });

  test('when several values are invalid, then all are reported at once, without the values', () => {
    const problems = problemsOf({
      PORT: 'eighty',
      DATABASE_URL: 'mysql://secret@host/db',
      AI_PROVIDERS: 'deepseek:x,skynet:1',
      AI_ENABLED: 'maybe',
    });
    expect(problems.map((problem) => problem.split(':')[0])).toEqual(['PORT', 'DATABASE_URL', 'AI_ENABLED', 'AI_PROVIDERS']);
    expect(problems.join()).not.toContain('secret');
  });

  test.each(['ALERT_WHATSAPP_TO', 'VAPI_TRANSFER_NUMBER'])('when %s is a number in any spelling, then it is read', (name) => {
    const others = { KAPSO_PHONE_NUMBER_ID: '1', ALERT_WHATSAPP_TEMPLATE: 'owner_alert', ALERT_WHATSAPP_TO: '+15550100' };
    expect(readSettings({ ...others, [name]: '52 1 55 0000 0001' })).toMatchObject({ [name]: '+525500000001' });
    expect(problemsOf({ ...others, [name]: '030 123456' })).toEqual([
      expect.stringMatching(`^${name}: has no country code; write it with one`),
    ]);
  });

  test.each([
    ['postgres://bob:50%off@db/parley', 'has a user or password that cannot be read: write % as %25'],
    ['postgres://b%ob:secret@db/parley', 'has a user or password that cannot be read: write % as %25'],
    ['postgres://bob:caf%e9@db/parley', 'has a user or password that cannot be read: write % as %25'],
    ['postgres://bob:secret@db/par%ley', 'has a database name that cannot be read: write % as %25'],
  ])('when a % in %s begins no encoded character, then it is refused', (DATABASE_URL, problem) => {
    expect(problemsOf({ DATABASE_URL })).toEqual([`DATABASE_URL: ${problem}`]);
    expect(problemsOf({ DATABASE_URL: 'postgres://b%25ob:50%25off%40@db/par%20ley' })).toEqual([]);
  });

  test.each(['127.0.0.1', '::', 'localhost', 'parley.internal'])('%s is a HOST', (HOST) => {
    expect(problemsOf({ HOST })).toEqual([]);
  });

  test.each(['999.1.1.1', 'foo bar', 'http://localhost', '[::1]'])('%s is no HOST', (HOST) => {
    expect(problemsOf({ HOST })).toEqual(['HOST: must be an IP address or a host name']);
  });

  test('when a value is empty, as in a copied .env.example, then it counts as not set', () => {
    expect(readSettings({ PORT: '', KAPSO_API_KEY: '  ' })).toEqual(readSettings({}));
  });

  test('when a list is given, then its items are trimmed and empty ones dropped', () => {
    expect(readSettings({ KAPSO_WEBHOOK_SECRET: ' new , old ,' }).KAPSO_WEBHOOK_SECRET).toEqual(['new', 'old']);
  });

  test('when the URL of an Ollama server has no path, then /v1 is added; any other path stays', () => {
    expect(readSettings({ SEALION_URL: 'http://localhost:11434' }).SEALION_URL).toBe('http://localhost:11434/v1');
    expect(readSettings({ SEALION_URL: 'http://localhost:11434/v1/' }).SEALION_URL).toBe('http://localhost:11434/v1');
  });

  test('when no time zone is set, then it is the machine’s; the case of a name does not matter', () => {
    expect(readSettings({}).TIME_ZONE).toBe(Intl.DateTimeFormat().resolvedOptions().timeZone);
    for (const TIME_ZONE of ['Europe/Berlin', 'america/mexico_city', 'UTC']) expect(problemsOf({ TIME_ZONE })).toEqual([]);
  });

  test.each(['Mars/Phobos', '+01:00', 'Berlin', 'UTC+1'])('%s is not a valid TIME_ZONE', (TIME_ZONE) => {
    expect(problemsOf({ TIME_ZONE })).toEqual(['TIME_ZONE: must be a time zone such as Europe/Berlin']);
  });

  test('when the longest wait is shorter than the quiet period, then it is rejected', () => {
    expect(problemsOf({ REPLY_QUIET_MS: '6000', REPLY_QUIET_MAX_MS: '1000' })).toEqual([
      'REPLY_QUIET_MAX_MS: must not be smaller than REPLY_QUIET_MS',
    ]);
  });

  test('when a setting is wrong in more than one way, then there is one line about it', () => {
    expect(problemsOf({ SEND_CONFIRM_MS: '-1', REPLY_QUIET_MS: '-0.5', PORT: '0.5' })).toEqual([
      expect.stringMatching(/^PORT: /),
      expect.stringMatching(/^REPLY_QUIET_MS: must be a whole number/),
      'SEND_CONFIRM_MS: must be at least 1000',
    ]);
  });

  test.each([
    [{ ALERT_WEBHOOK_URL: 'http://hooks.example.com/x' }, 'ALERT_WEBHOOK_URL: must begin with https:// and name no port'],
    [{ ALERT_WEBHOOK_URL: 'https://hooks.example.com:8443/x' }, 'ALERT_WEBHOOK_URL: must begin with https:// and name no port'],
    [{ ALERT_WEBHOOK_URL: 'https://bob:pa%ss@hooks.example.com/x' }, 'ALERT_WEBHOOK_URL: must not contain a user or password'],
    [{ ALERT_WHATSAPP_TO: '+15550100', KAPSO_PHONE_NUMBER_ID: '1' }, 'ALERT_WHATSAPP_TEMPLATE: must be set together with'],
    [{ ALERT_WHATSAPP_TO: '+15550100', ALERT_WHATSAPP_TEMPLATE: 'a' }, 'KAPSO_PHONE_NUMBER_ID: is not set'],
    [{ ALERT_WHATSAPP_LANGUAGE: 'English' }, 'ALERT_WHATSAPP_LANGUAGE: must be the language code'],
  ])('when the settings of alerts are %j, then the error names the wrong one', (settings, problem) => {
    expect(problemsOf(settings)).toEqual([expect.stringContaining(problem)]);
  });

  test('when alerts may go to an internal address, then http and another port are allowed', () => {
    const settings = { ALERT_WEBHOOK_URL: 'http://10.0.0.5:8065/hooks/x', ALERT_WEBHOOK_INTERNAL: 'true' };
    expect(readSettings(settings).ALERT_WEBHOOK_URL).toBe('http://10.0.0.5:8065/hooks/x');
  });

  test('when an allowed host has a scheme or a path, then it is rejected; a port is optional', () => {
    const hosts = ['hooks.example.com', 'kestra:8080', '127.0.0.1:9000', '[::1]:9000'];
    expect(readSettings({ CALLBACK_ALLOWED_HOSTS: hosts.join() }).CALLBACK_ALLOWED_HOSTS).toEqual(hosts);
    for (const wrong of ['https://hooks.example.com', 'hooks.example.com/path', 'a host', 'host:99999'])
      expect(problemsOf({ CALLBACK_ALLOWED_HOSTS: wrong })).toEqual([expect.stringContaining(`"${wrong}" is not a host`)]);
  });

  test('when the login of a proxy cannot be decoded, then the error names the setting, but not the login', () => {
    const HTTPS_PROXY = 'http://user:pa%ss@proxy.example.com';
    expect(problemsOf({ HTTPS_PROXY })).toEqual(['HTTPS_PROXY: has a user or password that cannot be read: write % as %25']);
    expect(problemsOf({ HTTPS_PROXY: HTTPS_PROXY.replace('%', '%25') })).toEqual([]);
    expect(problemsOf({ HTTP_PROXY: 'ftp://proxy' })).toEqual(['HTTP_PROXY: must be the http(s) URL of a proxy']);
  });

  test('when the log level is unknown, then the error names the known ones', () => {
    expect(problemsOf({ LOG_LEVEL: 'loud' })).toEqual(['LOG_LEVEL: must be one of trace, debug, info, warn, error, silent']);
  });

  test('when the provider chain is "default", then an earlier choice is reset', () => {
    expect(readSettings({ AI_PROVIDERS: 'default' }).AI_PROVIDERS).toEqual([]);
  });

  test('when a required setting is missing, then the error names it and says why it is required', () => {
    expect(() => requireSettings(readSettings({}), { KAPSO_WEBHOOK_SECRET: 'anybody could post' })).toThrow(
      /KAPSO_WEBHOOK_SECRET.*anybody could post/,
    );
  });

  test('when WhatsApp has one of its settings, then the others are required, all at once; without any, it is off', () => {
    const one = readSettings({ KAPSO_API_KEY: 'k' });
    expect(() => requireWhatsAppSettings(one)).toThrow(/KAPSO_WEBHOOK_SECRET: is not set.*\n.*KAPSO_PHONE_NUMBER_ID: is not set/);
    requireWhatsAppSettings(readSettings({}));
    requireWhatsAppSettings(readSettings({ KAPSO_API_KEY: 'k', KAPSO_WEBHOOK_SECRET: 's', KAPSO_PHONE_NUMBER_ID: '1' }));
  });

  test('when .env.example is read, then it lists exactly the settings, each with a comment', () => {
    const lines = readFileSync('.env.example', 'utf8').split('\n');
    const named = lines.flatMap((line) => /^([A-Z_]+)=/.exec(line)?.[1] ?? []);
    const forCompose = lines.slice(lines.findIndex((line) => line.includes('Docker Compose only'))).join('\n');
    const settings = named.filter((name) => !forCompose.includes(`\n${name}=`));
    expect([...settings].sort()).toEqual(Object.keys(settingsSchema.shape).sort());
    for (const name of named) {
      const above = lines[lines.findIndex((line) => line.startsWith(`${name}=`)) - 1] ?? '';
      expect(`${name} ${above}`).toMatch(/^\w+ #.{10,}/);
    }
  });

  test.each([
    ['KAPSO_APIKEY=secret', '.env: KAPSO_APIKEY is not a setting and has no effect; did you mean KAPSO_API_KEY?'],
    ['export port=secret', '.env: port is not a setting and has no effect; did you mean PORT?'],
    ['WHATSAPP_KEY=secret', '.env: WHATSAPP_KEY is not a setting and has no effect; .env.example has them all'],
    ['secret\nKAPSO_API_KEY=secret', '.env: KAPSO_API_KEY has no effect, because the line before it has no ='],
  ])('when .env has %j, then what has no effect is named, without values', (line, sentence) => {
    expect(findStraySettings(`PORT=3000\n${line}\nLOG_LEVEL=info\n`)).toEqual([sentence]);
  });

  test('when .env has what other programs read, then nothing is stray', () => {
    const others = 'COMPOSE_PROJECT_NAME=p\nNODE_EXTRA_CA_CERTS=ca.pem\nhttps_proxy=http://proxy\nTEMPORAL_TLS_CLIENT_CERT_PATH=c.pem\n';
    expect(findStraySettings(others + readFileSync('.env.example', 'utf8'))).toEqual([]);
  });

  test('when .env.example is used unchanged, then it is valid', () => {
    const entries = readFileSync('.env.example', 'utf8')
      .split('\n')
      .flatMap((line) => {
        const match = /^([A-Z_]+)=(.*)$/.exec(line);
        return match ? [[match[1] ?? '', match[2] ?? '']] : [];
      });
    expect(readSettings(Object.fromEntries(entries))).toEqual(readSettings({}));
    // Set, it would no longer give way to a program that has the port.
    expect(Object.fromEntries(entries).PORT).toBe('');
  });
});
