/** What a Temporal namespace must have before workflows can be started in it. */
import type { Client } from '@temporalio/client';
import { searchAttributes } from '../../workflows/contract';

/** Values of Temporal's IndexedValueType. */
const KEYWORD = 2;
const BOOL = 5;
const WANTED_ATTRIBUTES = {
  [searchAttributes.workspace]: KEYWORD,
  [searchAttributes.mode]: KEYWORD,
  [searchAttributes.attention]: BOOL,
  [searchAttributes.callStatus]: KEYWORD,
  [searchAttributes.callOutcome]: KEYWORD,
};

/** gRPC status codes. */
const ALREADY_EXISTS = 6;
const PERMISSION_DENIED = 7;
const UNIMPLEMENTED = 12;

/**
 * Registers the search attributes that workflows are started with. Does nothing where they exist, and where the server
 * lets nobody ask or add: Temporal Cloud wants them made by its own tools (docs/production.md).
 * @throws when Temporal cannot be reached, or refuses for another reason
 */
export async function ensureSearchAttributes(client: Client): Promise<void> {
  const { operatorService } = client.connection;
  const { namespace } = client.options;
  try {
    const { customAttributes } = await operatorService.listSearchAttributes({ namespace });
    const missing = Object.entries(WANTED_ATTRIBUTES).filter(([name]) => !(name in (customAttributes ?? {})));
    if (missing.length > 0) await operatorService.addSearchAttributes({ namespace, searchAttributes: Object.fromEntries(missing) });
  } catch (error) {
    const { code } = error as { code?: number };
    // Another process was first, or it is not ours to add them.
    if (code === ALREADY_EXISTS || code === PERMISSION_DENIED || code === UNIMPLEMENTED) return;
    throw error;
  }
}
