/** What the terminal commands share: how they find the running instance, and how they listen to its sandbox. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

const instanceSchema = z.object({
  apiUrl: z.string(),
  apiKey: z.string(),
  sandboxUrl: z.string().nullish(),
  temporalAddress: z.string().nullish(),
  databaseUrl: z.string(),
  temporalUiUrl: z.string().nullish(),
  phoneNumberId: z.string().nullish(),
  playsCalls: z.boolean().default(false),
  pid: z.number().int(),
});
export type Instance = z.output<typeof instanceSchema>;

/** A reason to stop that is said in one line. */
export class TerminalError extends Error {
  override name = 'TerminalError';
}

/** What `npm start` has written down in its DATA_DIR. @throws TerminalError when nothing runs there */
export function readInstanceFile(dataDir: string): Instance {
  const notRunning = new TerminalError('start Parley first: npm start');
  try {
    const running = instanceSchema.parse(JSON.parse(readFileSync(join(dataDir, 'running.json'), 'utf8')));
    process.kill(running.pid, 0);
    return running;
  } catch {
    throw notRunning;
  }
}

/** The events of a stream (`text/event-stream`), parsed, as they come. @throws when the stream breaks */
export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<unknown> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of body) {
    const blocks = (rest + decoder.decode(chunk, { stream: true })).split('\n\n');
    rest = blocks.pop() ?? '';
    for (const block of blocks) {
      const data = block.split('\n').find((line) => line.startsWith('data: '));
      if (data !== undefined) yield JSON.parse(data.slice('data: '.length));
    }
  }
}

/** The link to the workflows of a type in the Temporal UI. */
export function workflowsLink(temporalUiUrl: string, query: string): string {
  return `${temporalUiUrl.replace(/\/+$/, '')}/namespaces/default/workflows?query=${encodeURIComponent(query)}`;
}

/** What an error says. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
