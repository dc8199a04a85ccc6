/** Another release of Parley, in a folder of its own: what a rolling release has running beside today's. */
import { cp, mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const ROOT = resolve(__dirname, '..', '..');

/** What a worker is made of. */
const SOURCES = ['package.json', 'tsconfig.json', 'prisma', 'src', 'activities', 'workflows'];

/** Decides as today's conversation does, and waits before. A history of either fails in the replay by the other from the first command on. */
const WORKFLOWS = `
import { sleep } from '@temporalio/workflow';
import type { ConversationInput, ConversationResult } from './contract';
import { conversationWorkflow as today } from './today';

export * from './today';

export async function conversationWorkflow(input: ConversationInput): Promise<ConversationResult> {
  await sleep(1, { summary: 'only this release waits here' });
  return await today(input);
}
`;

export interface OtherRelease {
  /** The file to start a worker of this release with. */
  workerEntry: string;
  remove(): Promise<void>;
}

/** Copies today's sources and changes what a conversation does. */
export async function makeOtherRelease(): Promise<OtherRelease> {
  const dir = await mkdtemp(join(tmpdir(), 'parley-release-'));
  for (const source of SOURCES) await cp(join(ROOT, source), join(dir, source), { recursive: true });
  await symlink(join(ROOT, 'node_modules'), join(dir, 'node_modules'));
  await mkdir(join(dir, 'dist'));
  await rename(join(dir, 'workflows', 'index.ts'), join(dir, 'workflows', 'today.ts'));
  await writeFile(join(dir, 'workflows', 'index.ts'), WORKFLOWS);
  return { workerEntry: join(dir, 'src', 'processes', 'worker.ts'), remove: () => rm(dir, { recursive: true }) };
}
