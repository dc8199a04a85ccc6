/** Shared by the terminal commands: finds the running instance and reads event streams of its sandbox. */
import { existsSync, readFileSync } from 'node:fs';
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
  simulatesWhatsApp: z.boolean().default(false),
  simulatesCalls: z.boolean().default(false),
  /** Not written by versions before 0.3, and neither are the fingerprints. */
  hasCalls: z.boolean().default(true),
  settingFingerprints: z.object({ salt: z.string(), hashes: z.record(z.string(), z.string()) }).nullish(),
  environment: z.record(z.string(), z.string()).default({}),
  pid: z.number().int(),
});
export type Instance = z.output<typeof instanceSchema>;

/** An error that ends a command with a one-line message. */
export class TerminalError extends Error {
  override name = 'TerminalError';
}

/** Whether a start has claimed DATA_DIR (src/local/embedded/instance.ts) and is not ready yet. */
export function isStarting(dataDir: string): boolean {
  if (existsSync(join(dataDir, 'running.json'))) return false;
  try {
    const { pid } = z.object({ pid: z.number().int().positive() }).parse(JSON.parse(readFileSync(join(dataDir, 'start.json'), 'utf8')));
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Reads the instance file that `npm start` writes to DATA_DIR. @throws TerminalError if no instance is running */
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

/** Yields the parsed events of a `text/event-stream` as they arrive. @throws if the stream breaks */
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

/** Link to the workflows that match `query` in the Temporal UI. */
export function workflowsLink(temporalUiUrl: string, query: string): string {
  return `${temporalUiUrl.replace(/\/+$/, '')}/namespaces/default/workflows?query=${encodeURIComponent(query)}`;
}

/** The message of an error, or the thrown value as text. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
