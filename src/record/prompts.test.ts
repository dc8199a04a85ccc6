import { randomUUID } from 'node:crypto';
import { type TestDatabase, testDatabase } from '../../test/support/engine';
import { type Database, openDatabase } from '../platform/database';
import { loadPromptMaterial } from './prompts';

let database: TestDatabase;
let db: Database;
let workspaceId: string;

beforeAll(async () => {
  database = await testDatabase('prompts');
  db = openDatabase(database.url);
  const settings = { create: { historyLimit: 3 } };
  ({ id: workspaceId } = await db.orm.workspace.create({ data: { name: 'w', kapsoPhoneNumberId: '1', settings } }));
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

async function startConversation() {
  const workflowId = randomUUID();
  const contact = { create: { workspaceId, contactKey: randomUUID(), phone: '15550100' } };
  const { id: conversationId } = await db.orm.conversation.create({
    data: { workspace: { connect: { id: workspaceId } }, contact, workflowId },
  });
  const row = { workspaceId, conversationId, kind: 'text' };
  return {
    /** Null: nobody has answered it yet. */
    asks: async (text: string, outcome: 'answered' | 'failed' | null) =>
      (await db.orm.message.create({ data: { ...row, text, workflowId, direction: 'inbound', status: 'received', outcome } })).id,
    answers: async (text: string, status: 'sent' | 'read' | 'pending' | 'failed' = 'read') =>
      void (await db.orm.message.create({ data: { ...row, text, direction: 'outbound', status } })),
    /** In the order in which the model reads them. */
    prompt: async (...messageIds: string[]) =>
      (await loadPromptMaterial(db, { conversationId, workflowId, messageIds }))?.said?.map(({ text }) => text).reverse(),
  };
}

test('when a message arrived while the one before was being answered, then its prompt has that reply before it', async () => {
  const { asks, answers, prompt } = await startConversation();
  await asks('are you open?', 'answered');
  const second = await asks('and on Sunday?', null);
  await answers('yes');
  expect(await prompt(second)).toEqual(['are you open?', 'yes', 'and on Sunday?']);
});

test('when messages arrived that are to be answered later, then the prompt of the turn does not have them', async () => {
  const { asks, prompt } = await startConversation();
  const first = await asks('one', null);
  const second = await asks('two', null);
  await asks('not yet', null);
  expect(await prompt(first, second)).toEqual(['one', 'two']);
});

test('when more was said than the model is to read, then it reads the last of it, and all of the turn', async () => {
  const { asks, answers, prompt } = await startConversation();
  for (const index of [1, 2]) {
    await asks(`question ${index}`, 'answered');
    await answers(`answer ${index}`);
  }
  const turn = [await asks('a', null), await asks('b', null)];
  await answers('by hand', 'sent');
  expect(await prompt(...turn)).toEqual(['question 2', 'answer 2', 'by hand', 'a', 'b']);
});

test('when the customer has not seen a reply, then the model does not see it either', async () => {
  const { asks, answers, prompt } = await startConversation();
  await asks('hello?', 'failed');
  await answers('lost', 'failed');
  await answers('not sent yet', 'pending');
  expect(await prompt(await asks('hello again', null))).toEqual(['hello?', 'hello again']);
});
