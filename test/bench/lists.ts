/** How long the API takes to list conversations while messages come in. */
import { type Ledger, makeMessages, sendOpenLoop } from './load';
import type { Product } from './product';
import { nowMs } from './protocol';

/** Messages per second meanwhile. */
const PACE = 10;
const MESSAGES_PER_CONVERSATION = 5;
const MIDDLE_AGE_MS = 60 * 24 * 60 * 60_000;

/** The latencies of one kind of list, in ms. */
export interface ListSamples {
  what: string;
  latenciesMs: number[];
}

/** Asks for every kind of list in turn, one request at a time, for `seconds` of the load. */
export async function measureLists(product: Product, ledger: Ledger, seconds: number): Promise<ListSamples[]> {
  const kinds = listPaths().map(([what, path]) => ({ what, path, latenciesMs: [] as number[] }));
  const messages = makeMessages(PACE * seconds, Math.ceil((PACE * seconds) / MESSAGES_PER_CONVERSATION));
  await product.prepare([...new Set(messages.map(({ customer }) => customer))]);
  let isOver = false;
  const load = sendOpenLoop(product, ledger, messages, PACE).finally(() => {
    isOver = true;
  });
  // Awaited below; an earlier failure must not count as unhandled.
  load.catch(() => undefined);
  while (!isOver) {
    for (const { path, latenciesMs } of kinds) {
      const startedAtMs = nowMs();
      await product.read(path);
      latenciesMs.push(nowMs() - startedAtMs);
    }
  }
  await load;
  await product.settle();
  return kinds.map(({ what, latenciesMs }) => ({ what, latenciesMs }));
}

/** The first page, pages from the middle of the record, and each filter. */
function listPaths(): [what: string, path: string][] {
  const path = (query: string) => `/api/v1/conversations?limit=50${query}`;
  const middle = `&before=${Date.now() - MIDDLE_AGE_MS}_00000000-0000-0000-0000-000000000000`;
  return [
    ['first page', path('')],
    ['page in the middle', path(middle)],
    ['needing attention', path('&needsAttention=true')],
    ['needing none, in the middle', path(`&needsAttention=false${middle}`)],
    ['answered by a person', path('&mode=human')],
    ['answered by the AI, in the middle', path(`&mode=ai${middle}`)],
    ['paused and needing attention', path('&mode=paused&needsAttention=true')],
  ];
}
