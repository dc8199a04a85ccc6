import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { eventually } from '../support/expectations';
import { WebhookClient } from './webhook';

let server: Server;
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
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/webhook/kapso`;
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

test('when the server has ended the idle connection, then nothing waits for an answer on it', async () => {
  server.closeIdleConnections();
  // A message that is sent before the end of the connection has come through fails; the next one takes a new connection.
  await eventually(() => client.send(message('three')));
  expect(taken).toBe(3);
  expect(connections).toHaveLength(2);
});
