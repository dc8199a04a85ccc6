import { IncomingMessage, ServerResponse } from 'node:http';
import { Socket } from 'node:net';
import type { Response } from 'express';
import { clientLeft } from './requests';

const aResponse = () => new ServerResponse(new IncomingMessage(new Socket())) as Response;

describe('a client that disconnects', () => {
  test('when the client disconnects later, then the signal aborts', () => {
    const response = aResponse();
    const left = clientLeft(response);
    expect(left.aborted).toBe(false);
    response.emit('close');
    expect(left.aborted).toBe(true);
  });

  test('when the client had already disconnected, then the signal is aborted', () => {
    const response = aResponse();
    response.destroy();
    expect(clientLeft(response).aborted).toBe(true);
  });
});
