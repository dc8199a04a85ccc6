/** The whole system behind a forward proxy: the vendors and Temporal have names that only the proxy knows. */

import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { newNumber, placeCall, resultOf } from './support/calls';
import { makeCertificate } from './support/certificates';
import { testTemporal } from './support/engine';
import { newPhone, outcomesOf } from './support/expectations';
import { type ForwardProxy, startForwardProxy } from './support/forward-proxy';
import { testWith } from './support/programs';
import { startSuite } from './support/suite';
import { API_KEY, inherited, type System } from './support/system';

let folder: string;
let proxy: ForwardProxy;
let tls: Server;
let system: System;
/** Where the TLS server passes requests on to. */
let sandboxUrl: URL;

const HOSTS = ['kapso.test', 'vapi.test', 'models.test'];
const portOf = (address: string) => Number(new URL(`tcp://${address}`).port);

const behindProxy = testWith('openssl');

beforeAll(async () => {
  if (behindProxy === test.skip) return;
  folder = await mkdtemp(join(tmpdir(), 'parley-proxies-'));
  const { certFile, keyFile } = await makeCertificate(folder, 'vendors', ...HOSTS.map((host) => `DNS:${host}`));
  const options = { cert: await readFile(certFile), key: await readFile(keyFile) };
  tls = createServer(options, (request, response) => {
    const { method, url: path, headers } = request;
    const onward = httpRequest({ host: sandboxUrl.hostname, port: sandboxUrl.port, method, path, headers }, (answer) => {
      const { location } = answer.headers;
      // A recording's address, which the double gives with the scheme that it serves itself.
      if (location !== undefined) answer.headers.location = location.replace('http://vapi.test', 'https://vapi.test');
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    request.pipe(onward);
  }).listen(0, '127.0.0.1');
  await once(tls, 'listening');
  const { port } = tls.address() as AddressInfo;
  const vendors = Object.fromEntries(HOSTS.map((host) => [`${host}:443`, port]));
  proxy = await startForwardProxy({ ...vendors, 'temporal.test:7233': portOf(testTemporal().address) });
  system = await startSuite('proxies', {
    environment: (sandbox) => {
      sandboxUrl = new URL(sandbox.url);
      return {
        KAPSO_BASE_URL: 'https://kapso.test',
        VAPI_BASE_URL: 'https://vapi.test/vapi',
        SANDBOX_URL: '',
        AI_PROVIDERS: 'openai:gpt-5.4-mini',
        OPENAI_API_KEY: 'key',
        OPENAI_BASE_URL: 'https://models.test/v1',
        TEMPORAL_ADDRESS: 'temporal.test:7233',
        // Lower and upper case; the worker's and the API's libraries know one or the other, or none.
        HTTPS_PROXY: proxy.url,
        http_proxy: 'http://127.0.0.1:9',
        NODE_EXTRA_CA_CERTS: certFile,
      };
    },
  });
});

afterAll(async () => {
  await system?.close();
  await proxy?.close();
  tls?.closeAllConnections();
  tls?.close();
  if (folder) await rm(folder, { recursive: true, force: true });
});

behindProxy('when everything outside is behind a proxy, then a message is answered, and a call ends with its recording', async () => {
  const phone = newPhone();
  await system.sandbox.kapso.deliver({ messages: [{ from: phone, id: `wamid.${phone}`, text: { body: 'hi' } }] });
  await system.sandbox.kapso.waitForVisible(phone, 1, 30_000);
  expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);

  const { body } = await placeCall(system, { to: newNumber() });
  expect(await resultOf(system, body.callId)).toMatchObject({ outcome: 'completed' });
  const recording = await fetch(`${system.apiUrl}/api/v1/vapi/calls/${body.callId}/recording`, {
    headers: { Authorization: `Bearer ${API_KEY}` },
  });
  expect([recording.status, (await recording.arrayBuffer()).byteLength > 0]).toEqual([200, true]);

  const asked = new Set(proxy.asked);
  expect([...asked].sort()).toEqual([...HOSTS.map((host) => `CONNECT ${host}:443`), 'CONNECT temporal.test:7233'].sort());
});

test('when every proxy is down and everything is on this machine, then the processes start anyway', async () => {
  const names = ['HTTPS_PROXY', 'https_proxy', 'HTTP_PROXY', 'http_proxy', 'grpc_proxy', 'no_grpc_proxy'];
  const dead = await startSuite('dead_proxies', {
    environment: () => Object.fromEntries(names.map((name) => [name, 'http://127.0.0.1:9'])),
  });
  try {
    const phone = newPhone();
    await dead.sandbox.kapso.deliver({ messages: [{ from: phone, id: `wamid.${phone}`, text: { body: 'hi' } }] });
    expect(await outcomesOf(dead, phone, 1)).toEqual(['answered']);
  } finally {
    await dead.close();
  }
});

test('when the Temporal CLI has to be downloaded, then through the proxy', async () => {
  const cacheDir = await mkdtemp(join(tmpdir(), 'parley-cli-'));
  const refusing = await startForwardProxy({});
  // In a process of its own: the downloader is native, and reads the real environment.
  const find = `require('./src/platform/config.ts').loadEnvFile();
    require('./src/local/embedded/temporal-cli.ts').findTemporalCli({ environment: {}, cacheDir: ${JSON.stringify(cacheDir)}, onProgress() {} })
      .catch((error) => console.log(error.message));`;
  const env = { ...inherited(), HTTPS_PROXY: refusing.url };
  try {
    const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', '--eval', find], { env });
    expect(stdout).toContain('download: ');
    expect([...new Set(refusing.asked)]).toEqual(['CONNECT temporal.download:443']);
  } finally {
    await refusing.close();
    await rm(cacheDir, { recursive: true, force: true });
  }
});
