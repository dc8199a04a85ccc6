/**
 * The sandbox's control API, for other local processes: write as a customer, watch a chat or a call, choose call scenarios,
 * program faults, read totals.
 */
import { json, type Request, type Response, Router } from 'express';
import { z } from 'zod';
import { CUSTOMER_KINDS } from '../kapso/customer-content';
import type { KapsoDouble } from '../kapso/double';
import { kapsoFaultSchema } from '../kapso/requests';
import { type ModelDouble, modelProgramSchema } from '../models/double';
import type { VapiDouble } from '../vapi/double';
import { PLAYS } from '../vapi/plays';
import { playProgramSchema, vapiFaultSchema } from '../vapi/requests';
import { expectBody, expectQuery, parseOrReject } from './help';

/** The simulated providers. */
export interface Doubles {
  kapso: KapsoDouble;
  vapi: VapiDouble;
  models: ModelDouble;
}

const PHONE = { form: /^\+[1-9]\d{4,14}$/, problem: 'must be a phone number such as +15550100' };
/** In a query string, an unescaped plus is decoded as a space. */
const phoneInQuery = z
  .string()
  .transform((text) => `+${text.replace(/^[\s+]+/, '')}`)
  .pipe(z.string().regex(PHONE.form, PHONE.problem));

const customerMessage = expectBody(
  z.strictObject({
    text: z.string().max(4096).default(''),
    name: z.string().max(256).optional(),
    kind: z.enum(CUSTOMER_KINDS).optional(),
    replyTo: z.string().optional(),
  }),
  { text: 'Hi', name: 'Ann' },
);
const ownerMessage = expectBody(z.strictObject({ text: z.string().min(1).max(4096) }), { text: 'I will call you.' });
const faults = expectBody(
  z.strictObject({
    kapso: z.array(kapsoFaultSchema).optional(),
    vapi: z.array(vapiFaultSchema).optional(),
    models: z.array(modelProgramSchema).optional(),
  }),
  { kapso: [{ answer: '500', times: 1 }], vapi: [{ on: 'create', answer: '429', times: 1 }], models: [{ error: { status: 503 } }] },
);
const plays = expectBody(z.array(playProgramSchema), [{ play: 'busy', times: 1 }]);
const incomingCall = expectBody(
  z.strictObject({ from: z.string({ error: PHONE.problem }).regex(PHONE.form, PHONE.problem), play: z.enum(PLAYS).optional() }),
  { from: '+15550100' },
);
const dialledQuery = expectQuery(z.strictObject({ number: phoneInQuery.optional(), name: z.string().optional() }), '?number=+15550100');
const KEEP_ALIVE_MS = 15_000;

/** The routes under /sandbox. An invalid request gets a 400 with the reasons and an example. */
export function controlRoutes(doubles: Doubles): Router {
  const { kapso, vapi, models } = doubles;
  const router = Router();
  router.use(json({ limit: '1mb' }));
  router.post('/customers/:phone/messages', (request, response) => sendAsCustomer(kapso, request, response));
  router.post('/customers/:phone/owner-messages', (request, response) => sendAsOwner(kapso, request, response));
  router.get('/customers/:phone/messages', (request, response) => {
    const { phone } = request.params;
    response.json({ name: kapso.nameOf(phone) ?? null, data: kapso.chat(phone) });
  });
  router.get('/customers/:phone/events', (request, response) => {
    streamEvents(response, [], (listener) => kapso.subscribe(request.params.phone, listener));
  });
  router.use('/calls', callRoutes(vapi));
  router.use('/plays', playRoutes(vapi));
  router.get('/faults', (_request, response) => {
    response.json({ kapso: kapso.faults(), vapi: vapi.faults(), models: models.programs() });
  });
  router.put('/faults', (request, response) => programFaults(doubles, request, response));
  router.delete('/faults', (_request, response) => {
    kapso.clearFaults();
    vapi.clearFaults();
    models.clear();
    response.status(204).end();
  });
  router.get('/stats', (_request, response) => {
    response.json({ kapso: kapso.counts(), vapi: vapi.counts(), models: models.counts(), memoryBytes: process.memoryUsage().rss });
  });
  router.use((_request, response) => {
    response.status(404).json({ error: 'no such endpoint; GET / lists them' });
  });
  return router;
}

/** Calls: list, inbound call, dial counts, one call by Vapi's id or by name with its events, hang-up. */
function callRoutes(vapi: VapiDouble): Router {
  const router = Router();
  router.get('/', (_request, response) => {
    response.json({ data: vapi.calls() });
  });
  router.post('/', (request, response) => {
    const call = parseOrReject(incomingCall, request, response);
    if (call === undefined) return;
    const baseUrl = `${request.protocol}://${request.get('host')}/vapi`;
    response.status(201).json(vapi.receiveCall({ ...call, baseUrl }));
  });
  router.get('/dialled', (request, response) => {
    const query = parseOrReject(dialledQuery, request, response);
    if (query !== undefined) response.json({ dialled: vapi.dialled(query) });
  });
  router.get('/:id', (request, response) => {
    response.json({ calls: vapi.find(request.params.id), events: vapi.events(request.params.id) });
  });
  router.get('/:id/events', (request, response) => {
    const { id } = request.params;
    streamEvents(response, vapi.events(id), (listener) => vapi.subscribe(id, listener));
  });
  router.post('/:id/hang-up', (request, response) => {
    if (vapi.hangUp(request.params.id)) response.status(204).end();
    else response.status(404).json({ error: 'no live call with this id or name' });
  });
  return router;
}

function playRoutes(vapi: VapiDouble): Router {
  const router = Router();
  router.get('/', (_request, response) => {
    response.json(vapi.plays());
  });
  router.put('/', (request, response) => {
    const programs = parseOrReject(plays, request, response);
    if (programs === undefined) return;
    vapi.clearPlays();
    for (const play of programs) vapi.play(play);
    response.status(204).end();
  });
  router.delete('/', (_request, response) => {
    vapi.clearPlays();
    response.status(204).end();
  });
  return router;
}

async function sendAsCustomer(kapso: KapsoDouble, request: Request, response: Response): Promise<void> {
  const message = parseOrReject(customerMessage, request, response);
  if (message === undefined) return;
  const { wamid, status, attempts } = await kapso.customerSends({ from: String(request.params.phone), ...message });
  response.json({ wamid, delivered: status, attempts });
}

/** Sends a message to the customer as the owner does in the WhatsApp Business app. */
async function sendAsOwner(kapso: KapsoDouble, request: Request, response: Response): Promise<void> {
  const message = parseOrReject(ownerMessage, request, response);
  if (message === undefined) return;
  const { wamid, status, attempts } = await kapso.personReplies(String(request.params.phone), message.text);
  response.json({ wamid, delivered: status, attempts });
}

/** Replaces the faults of each double that the body names. */
function programFaults({ kapso, vapi, models }: Doubles, request: Request, response: Response): void {
  const programs = parseOrReject(faults, request, response);
  if (programs === undefined) return;
  if (programs.kapso !== undefined) kapso.clearFaults();
  if (programs.vapi !== undefined) vapi.clearFaults();
  if (programs.models !== undefined) models.clear();
  for (const fault of programs.kapso ?? []) kapso.fault(fault);
  for (const fault of programs.vapi ?? []) vapi.fault(fault);
  for (const entry of programs.models ?? []) models.program(entry);
  response.status(204).end();
}

type StreamedEvent = { type: string };

/** Streams events (`text/event-stream`): the `past` ones, then each new one as it happens. */
function streamEvents(
  response: Response,
  past: StreamedEvent[],
  subscribe: (listener: (event: StreamedEvent) => void) => () => void,
): void {
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' });
  response.write(': watching\n\n');
  const send = (event: StreamedEvent) => response.write(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
  past.forEach(send);
  const unsubscribe = subscribe(send);
  const alive = setInterval(() => response.write(': alive\n\n'), KEEP_ALIVE_MS);
  response.once('close', () => {
    clearInterval(alive);
    unsubscribe();
  });
}
