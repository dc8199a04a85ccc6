/** Registers the custom search attributes that a Temporal namespace needs before workflows can start in it. */
import type { Client } from '@temporalio/client';
import { searchAttributes } from '../../workflows/contract';

/** Values of Temporal's IndexedValueType. */
const KEYWORD = 2;
const BOOL = 5;
const REQUIRED_ATTRIBUTES: Record<string, number> = {
  [searchAttributes.workspace]: KEYWORD,
  [searchAttributes.mode]: KEYWORD,
  [searchAttributes.attention]: BOOL,
  [searchAttributes.callStatus]: KEYWORD,
  [searchAttributes.callOutcome]: KEYWORD,
};

/** Search attributes are missing, and the server does not let Parley add them. Until somebody does, no workflow can start. */
export class MissingSearchAttributesError extends Error {
  override name = 'MissingSearchAttributesError';
  constructor(missing: string[], namespace: string, cause: unknown) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    super(
      `the namespace ${namespace} has no search attributes ${missing.join(', ')}, and they could not be added (${reason}); add them with Temporal's own tools (docs/production.md)`,
      { cause },
    );
  }
}

/**
 * Registers the missing search attributes. Where the server does not permit it (on Temporal Cloud they are created with its own tools, see
 * docs/production.md), or has no room for them, they must exist already. `onMissing` gets the missing ones, if any.
 * @throws MissingSearchAttributesError, or the client's error if Temporal is unreachable
 */
export async function ensureSearchAttributes(client: Client, onMissing: (names: string[]) => void = () => undefined): Promise<void> {
  const { namespace } = client.options;
  const missing = await findMissing(client);
  if (missing.length === 0) return onMissing([]);
  const added = Object.fromEntries(missing.map((name) => [name, REQUIRED_ATTRIBUTES[name] ?? KEYWORD]));
  try {
    await client.connection.operatorService.addSearchAttributes({ namespace, searchAttributes: added });
    onMissing([]);
  } catch (error) {
    // Another process may have registered them first.
    const stillMissing = await findMissing(client);
    onMissing(stillMissing);
    if (stillMissing.length > 0) throw new MissingSearchAttributesError(stillMissing, namespace, error);
  }
}

async function findMissing(client: Client): Promise<string[]> {
  const { customAttributes } = await client.connection.operatorService.listSearchAttributes({ namespace: client.options.namespace });
  return Object.keys(REQUIRED_ATTRIBUTES).filter((name) => !(name in (customAttributes ?? {})));
}
