/** Registers the custom search attributes that a Temporal namespace needs before workflows can start in it. */
import type { Client } from '@temporalio/client';
import { searchAttributes } from '../../workflows/contract';

/** Values of Temporal's IndexedValueType. */
const KEYWORD = 2;
const BOOL = 5;
const REQUIRED_ATTRIBUTES = {
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
 * Registers the missing search attributes. Does nothing where the server does not permit it: on Temporal Cloud they are created
 * with its own tools (docs/production.md).
 * @throws if Temporal is unreachable or rejects the request for another reason
 */
export async function ensureSearchAttributes(client: Client): Promise<void> {
  const { operatorService } = client.connection;
  const { namespace } = client.options;
  try {
    const { customAttributes } = await operatorService.listSearchAttributes({ namespace });
    const missing = Object.entries(REQUIRED_ATTRIBUTES).filter(([name]) => !(name in (customAttributes ?? {})));
    if (missing.length > 0) await operatorService.addSearchAttributes({ namespace, searchAttributes: Object.fromEntries(missing) });
  } catch (error) {
    const { code } = error as { code?: number };
    // Another process registered them first, or we are not allowed to.
    if (code === ALREADY_EXISTS || code === PERMISSION_DENIED || code === UNIMPLEMENTED) return;
    throw error;
  }
}
