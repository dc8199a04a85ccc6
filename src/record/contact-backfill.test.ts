/** The aliases of contacts that were written before there were any, with the real database. */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Prisma } from '../../prisma/generated/client';
import { message, useRecorder, workflowOf } from '../../test/support/recorder';
import type { ContactIdentity } from '../../workflows/contract';
import { phoneMatchingKey } from '../platform/phone';

const recorder = useRecorder('contact_backfill');
const { receive, newWorkspace, textsOf, contactsIn } = recorder;

describe('contacts from before there were aliases', () => {
  const MIGRATION = readFileSync('prisma/migrations/20261126171500_contact_aliases/migration.sql', 'utf8');
  const BACKFILL = MIGRATION.slice(MIGRATION.indexOf('-- Backfill'));

  beforeEach(() => recorder.db.orm.workspace.deleteMany());

  /** A contact as an older worker has written it, with a message. */
  async function oldContact(
    { id: workspaceId, phoneNumberId }: { id: string; phoneNumberId: string },
    contact: ContactIdentity,
    at: string,
  ) {
    const { contactKey, workflowId } = workflowOf(phoneNumberId, contact);
    const { id: contactId } = await recorder.db.orm.contact.create({ data: { workspaceId, contactKey, ...contact } });
    const { id: conversationId } = await recorder.db.orm.conversation.create({
      data: { workspaceId, contactId, workflowId, lastMessageAt: new Date(at) },
    });
    await recorder.db.orm.message.create({
      data: { workspaceId, conversationId, direction: 'inbound', kind: 'text', text: at, status: 'received', outcome: 'ai_disabled' },
    });
    return { contactId, conversationId };
  }

  test('when they are filled in, then every number has its matching key, and every id stands as it is', async () => {
    const workspace = await newWorkspace();
    const national = (length: number) => randomUUID().replace(/\D/g, '').padEnd(length, '7').slice(0, length);
    const numbers = ['521', '52', '549', '54', '5511', '55119', '55118', '55117', '22901', '229', '1', '49', '62'].flatMap((prefix) =>
      [7, 8, 9, 10, 11].map((length) => prefix + national(length)),
    );
    const distinct = [...new Map(numbers.map((phone) => [phoneMatchingKey(phone), phone])).values()];
    for (const phone of distinct) await oldContact(workspace, { phone }, '2026-01-01');
    const { contactId } = await oldContact(workspace, { businessScopedUserId: 'US.1' }, '2026-01-01');
    await recorder.db.query(Prisma.raw(BACKFILL));
    const aliases = await recorder.db.orm.contactAlias.findMany({ where: { workspaceId: workspace.id }, include: { contact: true } });
    expect(aliases).toHaveLength(distinct.length + 1);
    for (const { kind, value, contact } of aliases.filter((alias) => alias.kind === 'phone'))
      expect([kind, contact.phone, value]).toEqual(['phone', contact.phone, phoneMatchingKey(contact.phone ?? '')]);
    expect(aliases.find(({ kind }) => kind === 'user_id')).toMatchObject({ contactId, value: 'US.1' });
    expect(aliases.every(({ statedAt }) => statedAt !== null)).toBe(true);
  });

  test.each([
    ['the number', { phone: '5215500000001' }],
    ['the number, spelled otherwise', { phone: '525500000001' }],
    ['both', { phone: '5215500000001', businessScopedUserId: 'MX.1' }],
  ])(
    'when two claim the same number, then the one that wrote last has it, and the next message, with %s, makes them one',
    async (_what, contact) => {
      const workspace = await newWorkspace();
      const older = await oldContact(workspace, { phone: '5215500000001' }, '2026-01-01');
      const newer = await oldContact(workspace, { phone: '525500000001' }, '2026-02-01');
      await recorder.db.query(Prisma.raw(BACKFILL));
      expect(await recorder.db.orm.contactAlias.findMany({ where: { workspaceId: workspace.id } })).toMatchObject([
        { ...{ contactId: newer.contactId }, statedAt: null },
      ]);
      const { conversationId } = await receive(workspace.phoneNumberId, contact, message('now'));
      expect(await textsOf(conversationId)).toEqual(['2026-01-01', '2026-02-01', 'now']);
      expect([older.conversationId, newer.conversationId]).toContain(conversationId);
      expect(await contactsIn(workspace.id)).toHaveLength(1);
    },
  );

  test.each([
    ['the id', { businessScopedUserId: 'US.1' }],
    ['both', { phone: '15550100', businessScopedUserId: 'US.1' }],
  ])(
    'when two claim the same id, as the bug of the time left it, then the next message, with %s, makes them one',
    async (_what, contact) => {
      const workspace = await newWorkspace();
      await oldContact(workspace, { businessScopedUserId: 'US.1' }, '2026-01-01');
      await oldContact(workspace, { phone: '15550100', businessScopedUserId: 'US.1' }, '2026-02-01');
      await recorder.db.query(Prisma.raw(BACKFILL));
      const { conversationId } = await receive(workspace.phoneNumberId, contact, message('now'));
      expect(await textsOf(conversationId)).toEqual(['2026-01-01', '2026-02-01', 'now']);
      expect(await contactsIn(workspace.id)).toHaveLength(1);
    },
  );

  test('when a worker of the time writes one beside the new ones, then its person’s next message finds it', async () => {
    const workspace = await newWorkspace();
    const { conversationId } = await oldContact(workspace, { phone: '15550100' }, '2026-01-01');
    expect((await receive(workspace.phoneNumberId, { phone: '15550100' }, message('now'))).conversationId).toBe(conversationId);
    expect(await contactsIn(workspace.id)).toMatchObject([{ aliases: [{ value: '15550100' }] }]);
  });
});
