/** The roads through a voice call, its callback and the retention whose histories are kept. */
import { randomUUID } from 'node:crypto';
import type { Prisma } from '../../prisma/generated/client';
import type { PlayName } from '../../src/sandbox/vapi/plays';
import { callbackUpdateStart, callbackWorkflowId, callWorkflowId, RETENTION_WORKFLOW, type RetentionInput } from '../../workflows/contract';
import { newNumber, placeCall, request, startCall } from '../support/calls';
import { eventually, outcomesOf, workflowIdOf } from '../support/expectations';
import type { System } from '../support/system';
import type { Road } from './road';

export const callRoads: Record<string, Road> = {
  answered: played('answered'),
  'no-answer': played('no-answer'),
  silent: played('silent'),
  'no-report': played('no-report'),
  'no-events': played('no-events'),
  'placed-again-for-a-slot': played('concurrency-blocked'),
  'queued-by-429': dialled({ answer: '429', retryAfterSeconds: 1 }),
  'dial-refused': dialled({ answer: '401' }),
  'dial-cut-and-adopted': dialled({ answer: 'cut', takesEffect: true }),
  'dial-cut-and-unknown': dialled({ answer: 'cut', takesEffect: false }),
  async 'ended-by-the-caller'(system) {
    const to = newNumber();
    system.sandbox.vapi.play({ when: ({ number }) => number === to, play: 'answered', talkMs: 60_000 });
    const callId = await place(system, to);
    await system.sandbox.vapi.waitForStatus(callId, 'in-progress', 15_000);
    await request(system, 'DELETE', `/api/v1/vapi/calls/${callId}`);
    return callWorkflowId(callId);
  },
  async 'ended-at-the-second-request'(system) {
    const to = newNumber();
    system.sandbox.vapi.play({ when: ({ number }) => number === to, play: 'answered', talkMs: 60_000 });
    system.sandbox.vapi.fault({ when: ({ number }) => number === to, on: 'end', times: 1, takesEffect: false });
    const callId = await place(system, to);
    await system.sandbox.vapi.waitForStatus(callId, 'in-progress', 15_000);
    await request(system, 'DELETE', `/api/v1/vapi/calls/${callId}`);
    return callWorkflowId(callId);
  },
  async 'canceled-in-the-queue'(system) {
    const to = newNumber();
    system.sandbox.vapi.fault({ when: ({ number }) => number === to, answer: '429', retryAfterSeconds: 600 });
    const callId = await place(system, to);
    await eventually(async () => {
      const { dialCount } = await system.db.vapiCallResult.findUniqueOrThrow({ where: { id: callId } });
      if (dialCount !== 1) throw new Error('not asked yet');
    });
    await request(system, 'DELETE', `/api/v1/vapi/calls/${callId}`);
    return callWorkflowId(callId);
  },
  async 'queue-time-over'(system) {
    return callWorkflowId(await startCall(system, newNumber(), { queueForMs: 0 }));
  },
  async inbound(system) {
    const { id } = system.sandbox.vapi.receiveCall({ from: newNumber(), baseUrl: system.sandbox.vapiUrl });
    const row = await eventually(() => system.db.vapiCallResult.findUniqueOrThrow({ where: { providerCallId: id } }));
    return row.workflowId;
  },
  async 'with-conversation'(system) {
    const phone = newNumber().slice(1);
    await system.sandbox.kapso.customerSends({ from: phone, text: 'please call me' });
    await outcomesOf(system, phone, 1);
    return callWorkflowId(await place(system, `+${phone}`));
  },
};

/** Where a conversation is when a call of its person ends. */
export const conversationOfCallRoads: Record<string, Road> = {
  async 'with-call'(system) {
    const phone = newNumber().slice(1);
    await system.sandbox.kapso.customerSends({ from: phone, text: 'please call me' });
    await outcomesOf(system, phone, 1);
    await place(system, `+${phone}`);
    await system.sandbox.kapso.waitForVisible(phone, 2, 20_000);
    return await workflowIdOf(system, phone);
  },
};

export const callbackRoads: Record<string, Road> = {
  'taken-at-the-second-try': answeredBy(500),
  'receiver-gone': answeredBy(410),
  async update(system) {
    const to = newNumber();
    system.sandbox.vapi.play({ when: ({ number }) => number === to, play: 'late-report', times: 1 });
    const callId = await place(system, to, { callbackUrl: system.receiver.url });
    const { workflowId } = callbackUpdateStart(callId, system.taskQueue);
    await eventually(() => system.temporal.workflow.getHandle(workflowId).describe());
    return workflowId;
  },
};

export const retentionRoads: Record<string, Road> = {
  archive: retained('archive'),
  delete: retained('delete'),
  keep: retained('keep'),
  /** One of each kind: never dialled, with a callback and a conversation; dialled, and its workflow gone; placed by others. */
  async orphans(system) {
    const phone = newNumber().slice(1);
    await system.sandbox.kapso.customerSends({ from: phone, text: 'please call me' });
    await outcomesOf(system, phone, 1);
    const callbackUrl = 'https://nowhere.example/';
    await orphan(system, { direction: 'outbound', requestHash: 'hash', toNumber: `+${phone}`, callbackUrl });
    await orphan(system, { direction: 'outbound', requestHash: 'hash', dialledAt: new Date() });
    await orphan(system, { direction: 'inbound', providerCallId: randomUUID(), status: 'ended', endedReason: 'customer-busy' });
    return await retain(system, 'keep');
  },
};

async function place(system: System, to: string, more: Record<string, unknown> = {}): Promise<string> {
  return (await placeCall(system, { to, ...more })).body.callId;
}

function played(play: PlayName): Road {
  return async (system) => {
    const to = newNumber();
    system.sandbox.vapi.play({ when: ({ number }) => number === to, play, times: 1 });
    return callWorkflowId(await place(system, to));
  };
}

function dialled(fault: Omit<Parameters<System['sandbox']['vapi']['fault']>[0], 'when' | 'times'>): Road {
  return async (system) => {
    const to = newNumber();
    system.sandbox.vapi.fault({ ...fault, when: ({ number }) => number === to, times: 1 });
    return callWorkflowId(await place(system, to));
  };
}

function answeredBy(...answers: number[]): Road {
  return async (system) => {
    system.receiver.answers.push(...answers);
    const callId = await place(system, newNumber(), { callbackUrl: system.receiver.url });
    await system.temporal.workflow.getHandle(callWorkflowId(callId)).result();
    return callbackWorkflowId(callId);
  };
}

function retained(action: RetentionInput['action']): Road {
  return async (system) => {
    const doneAt = new Date(Date.now() - 100 * 24 * 60 * 60_000);
    const id = randomUUID();
    await system.db.vapiCallResult.create({
      data: { id, workflowId: callWorkflowId(id), direction: 'outbound', status: 'ended', outcome: 'busy', createdAt: doneAt, doneAt },
    });
    return await retain(system, action);
  };
}

async function retain(system: System, action: RetentionInput['action']): Promise<string> {
  const workflowId = `retention-${randomUUID()}`;
  const input: RetentionInput = { days: 90, action };
  await system.temporal.workflow.start(RETENTION_WORKFLOW, { workflowId, taskQueue: system.taskQueue, args: [input] });
  return workflowId;
}

async function orphan(system: System, fields: Omit<Prisma.VapiCallResultCreateInput, 'id' | 'workflowId'>): Promise<void> {
  const id = randomUUID();
  const createdAt = new Date(Date.now() - 2 * 60 * 60_000);
  await system.db.vapiCallResult.create({ data: { id, workflowId: callWorkflowId(id), createdAt, ...fields } });
}
