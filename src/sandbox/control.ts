/**
 * The sandbox's own HTTP, for other processes on this machine: write as a customer, watch a chat or a call, choose plays, program
 * faults, read totals.
 */
import { json, type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { KapsoDouble } from './kapso';
import { CUSTOMER_KINDS } from './kapso-bodies';
import { kapsoFaultSchema } from './kapso-requests';
import { type ModelDouble, modelProgramSchema } from './models';
import type { VapiDouble } from './vapi';
import { PLAYS } from './vapi-plays';
import { playProgramSchema, vapiFaultSchema } from './vapi-requests';

/** What the sandbox plays. */
export interface Doubles {
  kapso: KapsoDouble;
  vapi: VapiDouble;
  models: ModelDouble;
}

const customerMessage = z.strictObject({
  text: z.string().max(4096).default(''),
  name: z.string().max(256).optional(),
  kind: z.enum(CUSTOMER_KINDS).optional(),
  replyTo: z.string().optional(),
});
const faults = z.strictObject({
  kapso: z.array(kapsoFaultSchema).optional(),
  vapi: z.array(vapiFaultSchema).optional(),
  models: z.array(modelProgramSchema).optional(),
});
const plays = z.array(playProgramSchema);
const incomingCall = z.strictObject({ from: z.string().regex(/^\+[1-9]\d{4,14}$/), play: z.enum(PLAYS).optional() });
const dialledQuery = z.strictObject({ number: z.string().optional(), name: z.string().optional() });
const KEEP_ALIVE_MS = 15_000;

/** The routes under /sandbox. Bodies that are not valid get a 400 with the reasons. */
export function controlRoutes(doubles: Doubles): Router {
  const { kapso, vapi, models } = doubles;
  const router = Router();
  router.use(json({ limit: '1mb' }));
  router.post('/customers/:phone/messages', (request, response) => write(kapso, request, response));
  router.get('/customers/:phone/messages', (request, response) => {
    response.json({ data: kapso.chat(request.params.phone) });
  });
  router.get('/customers/:phone/events', (request, response) => {
    watch(response, [], (listener) => kapso.subscribe(request.params.phone, listener));
  });
  router.use('/calls', callRoutes(vapi));
  router.use('/plays', playRoutes(vapi));
  router.get('/faults', (_request, response) => {
    response.json({ kapso: kapso.faults(), vapi: vapi.faults(), models: models.programs() });
  });
  router.put('/faults', (request, response) => program(doubles, request, response));
  router.delete('/faults', (_request, response) => {
    kapso.clearFaults();
    vapi.clearFaults();
    models.clear();
    response.status(204).end();
  });
  router.get('/stats', (_request, response) => {
    response.json({ kapso: kapso.counts(), vapi: vapi.counts(), models: models.counts(), memoryBytes: process.memoryUsage().rss });
  });
  return router;
}

/** Calls: all of them, how many phones rang, one by Vapi's id or by name with its events, an inbound one, the person hanging up. */
function callRoutes(vapi: VapiDouble): Router {
  const router = Router();
  router.get('/', (_request, response) => {
    response.json({ data: vapi.calls() });
  });
  router.post('/', (request, response) => {
    const parsed = incomingCall.safeParse(request.body);
    if (!parsed.success) return refuse(response, parsed.error);
    const baseUrl = `${request.protocol}://${request.get('host')}/vapi`;
    response.status(201).json(vapi.receiveCall({ ...parsed.data, baseUrl }));
  });
  router.get('/dialled', (request, response) => {
    const parsed = dialledQuery.safeParse(request.query);
    if (!parsed.success) return refuse(response, parsed.error);
    response.json({ dialled: vapi.dialled(parsed.data) });
  });
  router.get('/:id', (request, response) => {
    response.json({ calls: vapi.find(request.params.id), events: vapi.events(request.params.id) });
  });
  router.get('/:id/events', (request, response) => {
    const { id } = request.params;
    watch(response, vapi.events(id), (listener) => vapi.subscribe(id, listener));
  });
  router.post('/:id/hang-up', (request, response) => {
    response.status(vapi.hangUp(request.params.id) ? 204 : 404).end();
  });
  return router;
}

function playRoutes(vapi: VapiDouble): Router {
  const router = Router();
  router.get('/', (_request, response) => {
    response.json(vapi.plays());
  });
  router.put('/', (request, response) => {
    const parsed = plays.safeParse(request.body);
    if (!parsed.success) return refuse(response, parsed.error);
    vapi.clearPlays();
    for (const play of parsed.data) vapi.play(play);
    response.status(204).end();
  });
  router.delete('/', (_request, response) => {
    vapi.clearPlays();
    response.status(204).end();
  });
  return router;
}

async function write(kapso: KapsoDouble, request: Request, response: Response): Promise<void> {
  const parsed = customerMessage.safeParse(request.body);
  if (!parsed.success) return refuse(response, parsed.error);
  const { wamid, status, attempts } = await kapso.customerSends({ from: String(request.params.phone), ...parsed.data });
  response.json({ wamid, delivered: status, attempts });
}

/** Replaces the faults of the doubles that the body names. */
function program({ kapso, vapi, models }: Doubles, request: Request, response: Response): void {
  const parsed = faults.safeParse(request.body);
  if (!parsed.success) {
    refuse(response, parsed.error);
    return;
  }
  if (parsed.data.kapso !== undefined) kapso.clearFaults();
  if (parsed.data.vapi !== undefined) vapi.clearFaults();
  if (parsed.data.models !== undefined) models.clear();
  for (const fault of parsed.data.kapso ?? []) kapso.fault(fault);
  for (const fault of parsed.data.vapi ?? []) vapi.fault(fault);
  for (const entry of parsed.data.models ?? []) models.program(entry);
  response.status(204).end();
}

type Watched = { type: string };

/** Events as a stream: those `before`, then each new one as it happens. */
function watch(response: Response, before: Watched[], subscribe: (listener: (event: Watched) => void) => () => void): void {
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' });
  response.write(': watching\n\n');
  const tell = (event: Watched) => response.write(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
  before.forEach(tell);
  const unsubscribe = subscribe(tell);
  const alive = setInterval(() => response.write(': alive\n\n'), KEEP_ALIVE_MS);
  response.once('close', () => {
    clearInterval(alive);
    unsubscribe();
  });
}

function refuse(response: Response, error: z.ZodError): void {
  response.status(400).json({ error: z.prettifyError(error) });
}
