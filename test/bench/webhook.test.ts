import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { WebhookClient } from './webhook';

let server: Server;
let url: string;
let client: WebhookClient;
const connections: Socket[] = [];
let taken = 0;

beforeAll(async () => {
  server = createServer((request, response) => {
    request.resume().on('end', () => {
      taken += 1;
      response.end('{"received":true}');
    });
  });
  server.on('connection', (connection) => connections.push(connection));
  await once(server.listen(0, '127.0.0.1'), 'listening');
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/webhook/kapso`;
  client = new WebhookClient({ url, secret: 'secret', phoneNumberId: '1' });
});

afterAll(async () => {
  client.close();
  server.close();
  await once(server, 'close');
});

const message = (mark: string) => ({ mark, customer: '15550000001' });

test('when one message follows another, then they share a connection', async () => {
  await client.send(message('one'));
  await client.send(message('two'));
  expect(taken).toBe(2);
  expect(connections).toHaveLength(1);
});

test('when the server has closed the idle connection, then the next message uses a new one', async () => {
  const [idle] = connections;
  if (!idle) throw new Error('there was no connection');
  const ended = once(idle, 'close');
  server.closeIdleConnections();
  await ended;
  // A response over another connection ensures that the client has seen the end of the first one.
  await (await fetch(url, { method: 'POST', body: '{}' })).text();
  await client.send(message('three'));
  expect(taken).toBe(4);
  expect(connections).toHaveLength(3);
});
