import { IncomingMessage, ServerResponse } from 'node:http';
import { Socket } from 'node:net';
import type { Response } from 'express';
import { clientLeft } from './requests';

const aResponse = () => new ServerResponse(new IncomingMessage(new Socket())) as Response;

describe('a client that leaves', () => {
  test('when it leaves later, then the signal fires', () => {
    const response = aResponse();
    const left = clientLeft(response);
    expect(left.aborted).toBe(false);
    response.emit('close');
    expect(left.aborted).toBe(true);
  });

  test('when it had left before anybody asked, then the signal has fired', () => {
    const response = aResponse();
    response.destroy();
    expect(clientLeft(response).aborted).toBe(true);
  });
});
