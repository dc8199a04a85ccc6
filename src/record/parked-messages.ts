/** Messages for a number that no workspace has. They become rows of a conversation once one has it. */
import type { Prisma } from '../../prisma/generated/client';
import type { ContactIdentity, InboundMessage } from '../../workflows/contract';
import type { Database } from '../platform/database';
import type { InboundDelivery } from './inbound';

/** Parks the messages; those that are parked already stay as they are. */
export async function parkMessages(db: Database, order: InboundDelivery): Promise<void> {
  const kept: { message: InboundMessage; contact: ContactIdentity }[] = order.messages.map((message) => ({
    message,
    contact: order.contact,
  }));
  await db.orm.parkedMessage.createMany({
    data: kept.map(({ message, contact }) => ({
      phoneNumberId: order.phoneNumberId,
      providerMessageId: message.providerMessageId,
      workflowId: order.workflowId,
      reason: 'no workspace has this number',
      message: { contact, ...message } as unknown as Prisma.InputJsonObject,
    })),
    skipDuplicates: true,
  });
}
