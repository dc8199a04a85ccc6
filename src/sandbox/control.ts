/** The sandbox's own HTTP, for other processes on this machine: write as a customer, watch a chat, program faults, read totals. */
import { json, type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ChatEvent, KapsoDouble } from './kapso';
import { CUSTOMER_KINDS } from './kapso-bodies';
import { kapsoFaultSchema } from './kapso-requests';
import { type ModelDouble, modelProgramSchema } from './models';

const customerMessage = z.strictObject({
  text: z.string().max(4096).default(''),
  name: z.string().max(256).optional(),
  kind: z.enum(CUSTOMER_KINDS).optional(),
  replyTo: z.string().optional(),
});
const faults = z.strictObject({ kapso: z.array(kapsoFaultSchema).optional(), models: z.array(modelProgramSchema).optional() });
const KEEP_ALIVE_MS = 15_000;

/** The routes under /sandbox. Bodies that are not valid get a 400 with the reasons. */
export function controlRoutes(kapso: KapsoDouble, models: ModelDouble): Router {
  const router = Router();
  router.use(json({ limit: '1mb' }));
  router.post('/customers/:phone/messages', (request, response) => write(kapso, request, response));
  router.get('/customers/:phone/messages', (request, response) => {
    response.json({ data: kapso.chat(request.params.phone) });
  });
  router.get('/customers/:phone/events', (request, response) => watch(kapso, request.params.phone, response));
  router.get('/faults', (_request, response) => {
    response.json({ kapso: kapso.faults(), models: models.programs() });
  });
  router.put('/faults', (request, response) => program(kapso, models, request, response));
  router.delete('/faults', (_request, response) => {
    kapso.clearFaults();
    models.clear();
    response.status(204).end();
  });
  router.get('/stats', (_request, response) => {
    response.json({ kapso: kapso.counts(), models: models.counts(), memoryBytes: process.memoryUsage().rss });
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
function program(kapso: KapsoDouble, models: ModelDouble, request: Request, response: Response): void {
  const parsed = faults.safeParse(request.body);
  if (!parsed.success) {
    refuse(response, parsed.error);
    return;
  }
  if (parsed.data.kapso !== undefined) kapso.clearFaults();
  if (parsed.data.models !== undefined) models.clear();
  for (const fault of parsed.data.kapso ?? []) kapso.fault(fault);
  for (const entry of parsed.data.models ?? []) models.program(entry);
  response.status(204).end();
}

function watch(kapso: KapsoDouble, phone: string, response: Response): void {
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' });
  response.write(': watching\n\n');
  const unsubscribe = kapso.subscribe(phone, (event: ChatEvent) => {
    response.write(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
  });
  const alive = setInterval(() => response.write(': alive\n\n'), KEEP_ALIVE_MS);
  response.once('close', () => {
    clearInterval(alive);
    unsubscribe();
  });
}

function refuse(response: Response, error: z.ZodError): void {
  response.status(400).json({ error: z.prettifyError(error) });
}
