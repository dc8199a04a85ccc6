/** Decides which contacts are one person, and who has a number. Pure, so that the rules can be read and tested alone. */

export interface KnownAlias {
  kind: 'phone' | 'user_id';
  value: string;
  /** By WhatsApp's clock. Null: two contacts older than the alias table share this alias, and it is not known yet whose it is. */
  statedAtMs: number | null;
}

/** A contact that may be the sender's. */
export interface KnownContact {
  id: string;
  hasConversation: boolean;
  /** As displayed: the number, its matching key, and the newest business-scoped id. */
  phone: string | null;
  phoneKey: string | null;
  userId: string | null;
  aliases: KnownAlias[];
}

/** How a message names its sender: by a number (its matching key), a business-scoped id, and what these replace. */
export interface NamedAliases {
  phoneKey?: string;
  userId?: string;
  formerPhoneKey?: string;
  formerUserId?: string;
  statedAtMs: number;
}

export interface ResolvedSender {
  /** The sender's contacts, the one to keep first; empty for somebody new. */
  contacts: KnownContact[];
  /** Whether the number is the sender's now. False if none was named, or a message written later has given it to somebody else. */
  hasPhone: boolean;
  /** Other people's contacts that lose the number to the sender. */
  formerOwners: KnownContact[];
}

/**
 * A business-scoped id identifies a person for certain. A number identifies one until another id appears with it, because numbers are given
 * to new owners. So contacts that a number leads to are the sender's, unless the sender and the contact each have an id of their own.
 */
export function resolveSender(named: NamedAliases, known: KnownContact[]): ResolvedSender {
  const found = (kind: KnownAlias['kind'], value: string | undefined) => contactsWith(known, kind, value);
  const contacts = new Set([...found('user_id', named.userId), ...found('user_id', named.formerUserId)]);
  let hasId = named.userId !== undefined || [...contacts].some(hasOwnId);
  for (const contact of [...found('phone', named.formerPhoneKey), ...found('phone', named.phoneKey)]) {
    const isOnlyLead = contacts.size === 0 && named.userId === undefined;
    if (!isOnlyLead && hasId && hasOwnId(contact)) continue;
    contacts.add(contact);
    hasId ||= hasOwnId(contact);
  }
  const others = found('phone', named.phoneKey).filter((contact) => !contacts.has(contact));
  const hasPhone = named.phoneKey !== undefined && !isOutdated(named, [...contacts], others);
  return { contacts: [...contacts].sort(keepFirst(named)), hasPhone, formerOwners: hasPhone ? others : [] };
}

/** Contacts with the alias first, then those that display it, from before there were aliases. */
function contactsWith(known: KnownContact[], kind: KnownAlias['kind'], value: string | undefined): KnownContact[] {
  if (value === undefined) return [];
  const displays = ({ phoneKey, userId }: KnownContact) => (kind === 'phone' ? phoneKey : userId) === value;
  const owners = known.filter((contact) => hasAlias(contact, kind, value));
  return [...owners, ...known.filter((contact) => displays(contact) && !owners.includes(contact))];
}

function hasAlias({ aliases }: KnownContact, kind: KnownAlias['kind'], value: string | undefined): boolean {
  return aliases.some((alias) => alias.kind === kind && alias.value === value);
}

/** An id that is older than the number went with the previous number: WhatsApp changes both together. */
function hasOwnId({ userId, aliases }: KnownContact): boolean {
  const phone = aliases.find(({ kind }) => kind === 'phone');
  const ids = aliases.filter(({ kind }) => kind === 'user_id');
  if (ids.length === 0) return userId !== null;
  return ids.some(({ statedAtMs }) => statedAtMs === null || statedAtMs >= (phone?.statedAtMs ?? Number.NEGATIVE_INFINITY));
}

/** A message that arrives late, or twice, must not give a number back to a previous owner. */
function isOutdated(named: NamedAliases, contacts: KnownContact[], others: KnownContact[]): boolean {
  const isNewer = ({ statedAtMs }: KnownAlias) => statedAtMs !== null && statedAtMs > named.statedAtMs;
  const isNamed = ({ value }: KnownAlias) => value === named.phoneKey;
  const numbersOf = (some: KnownContact[]) => some.flatMap(({ aliases }) => aliases).filter(({ kind }) => kind === 'phone');
  return (
    numbersOf(others).some((alias) => isNamed(alias) && isNewer(alias)) ||
    numbersOf(contacts).some((alias) => !isNamed(alias) && isNewer(alias))
  );
}

/** The contact with the number is kept: webhooks that name a number then reach its workflow directly. */
function keepFirst(named: NamedAliases): (one: KnownContact, other: KnownContact) => number {
  const rank = (contact: KnownContact) => {
    if (!contact.hasConversation) return 3;
    if (hasAlias(contact, 'phone', named.phoneKey)) return 0;
    return hasAlias(contact, 'user_id', named.userId) ? 1 : 2;
  };
  return (one, other) => rank(one) - rank(other) || (one.id < other.id ? -1 : 1);
}
