/** Which requests use a proxy. */
import { loadEnvFile, readProxies, SettingsError } from './config';
import { proxyFor } from './proxies';

const PROXY = 'http://proxy.example:3128';

const isProxied = (url: string, environment: Record<string, string>) => proxyFor(new URL(url), readProxies(environment)) !== undefined;

test.each([
  ['HTTPS_PROXY', 'https://api.example', true],
  ['https_proxy', 'https://api.example', true],
  ['HTTPS_PROXY', 'http://api.example', false],
  ['HTTP_PROXY', 'http://api.example', true],
  ['http_proxy', 'http://api.example', true],
  ['http_proxy', 'https://api.example', true],
])('when %s is set, then whether a request for %s uses it is %s', (name, url, expected) => {
  expect(isProxied(url, { [name]: PROXY })).toBe(expected);
});

test('when both cases are set, then the lower case wins, and both lists of exceptions apply', () => {
  const proxies = readProxies({ https_proxy: 'lower.example:1', HTTPS_PROXY: PROXY, no_proxy: 'one.example', NO_PROXY: 'two.example' });
  expect(proxyFor(new URL('https://api.example'), proxies)?.href).toBe('http://lower.example:1/');
  for (const name of ['one', 'two']) expect(proxyFor(new URL(`https://${name}.example`), proxies)).toBeUndefined();
});

test.each([
  'localhost',
  'LOCALHOST',
  'localhost.',
  'parley.localhost',
  '127.0.0.1',
  '127.8.9.1',
  '127.1',
  '[::1]',
  '[::ffff:127.0.0.1]',
  '0.0.0.0',
  '[::]',
])('when the host is %s, which is this machine, then no proxy is asked, whatever NO_PROXY says', (host) => {
  for (const scheme of ['http', 'https'])
    expect(isProxied(`${scheme}://${host}:3000/`, { HTTP_PROXY: PROXY, HTTPS_PROXY: PROXY, NO_PROXY: 'other.example' })).toBe(false);
});

test.each([
  ['example.com', 'https://example.com', false],
  ['example.com', 'https://API.Example.com', false],
  ['.example.com', 'https://api.example.com', false],
  ['*.example.com', 'https://api.example.com', false],
  ['example.com', 'https://notexample.com', true],
  ['example.com:8443', 'https://example.com:8443', false],
  ['example.com:8443', 'https://example.com', true],
  ['example.com:443', 'https://example.com', false],
  ['10.0.0.0/8', 'http://10.1.2.3:11434', false],
  ['10.0.0.0/8', 'http://11.1.2.3', true],
  ['10.0.0.0/8', 'http://ten.example', true],
  ['fd00::/8', 'http://[fd00::7]:80', false],
  ['fd00::7', 'http://[fd00:0::7]', false],
  ['[fd00::7]:80', 'http://[fd00::7]', false],
  ['192.168.1.5', 'http://192.168.1.5:9000', false],
  ['a.example b.example', 'http://b.example', false],
  ['*', 'https://example.com', false],
  ['10.0.0.0/99', 'http://10.1.2.3', true],
])('when NO_PROXY is %s, then whether %s takes the proxy is %s', (NO_PROXY, url, expected) => {
  expect(isProxied(url, { HTTP_PROXY: PROXY, HTTPS_PROXY: PROXY, NO_PROXY })).toBe(expected);
});

test.each(['ftp://proxy.example', 'socks5://proxy.example:1080', 'http://'])(
  'when a proxy is %s, then the error names the setting',
  (value) => {
    expect(() => readProxies({ https_proxy: value })).toThrow(SettingsError);
    expect(() => readProxies({ https_proxy: value })).toThrow('HTTPS_PROXY');
  },
);

test('when a proxy is set, then NO_PROXY excludes this machine for libraries and child processes that read it themselves', () => {
  // biome-ignore lint/style/noProcessEnv: as a shell sets it
  const environment = process.env;
  const before = { ...environment };
  try {
    for (const name of Object.keys(environment)) if (/_proxy$/i.test(name)) delete environment[name];
    loadEnvFile();
    expect([environment.no_proxy, environment.NO_PROXY]).toEqual([undefined, undefined]);
    Object.assign(environment, { grpc_proxy: PROXY, NO_PROXY: 'one.example' });
    loadEnvFile();
    for (const name of ['no_proxy', 'NO_PROXY'])
      expect(environment[name]?.split(',')).toEqual(expect.arrayContaining(['one.example', 'localhost', '127.0.0.1', '::1']));
  } finally {
    for (const name of Object.keys(environment)) delete environment[name];
    Object.assign(environment, before);
  }
});
