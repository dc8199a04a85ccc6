/** Which contacts are one person, and whose a number is. Pure, so that the rules can be read and tested alone. */

export interface KnownAlias {
  kind: 'phone' | 'user_id';
  value: string;
  /** By WhatsApp's clock; null while two contacts of the time before aliases claim it. */
  saidAtMs: number | null;
}

/** A contact that something said of a sender leads to. */
export interface KnownContact {
  id: string;
  hasConversation: boolean;
  /** What is shown of it: its number, the matching key of that, and its newest business-scoped id. */
  phone: string | null;
  phoneKey: string | null;
  userId: string | null;
  aliases: KnownAlias[];
}

/** What a message says of its sender: a number (its matching key), a business-scoped id, and what they replace. */
export interface Claim {
  phoneKey?: string;
  userId?: string;
  formerPhoneKey?: string;
  formerUserId?: string;
  saidAtMs: number;
}

export interface Verdict {
  /** The person's contacts, the one that stays first; none when nobody knows the person. */
  person: KnownContact[];
  /** Whether the number is theirs: false when a message that was written later has said otherwise, and when none was named. */
  takesPhone: boolean;
  /** Contacts of others that have the number no more. */
  losePhone: KnownContact[];
}

/**
 * A business-scoped id tells a person for certain. A number tells one as long as no other id comes with it: numbers are given to new
 * owners. So contacts that are found by a number are the person, unless both sides have an id of their own.
 */
export function judge(claim: Claim, contacts: KnownContact[]): Verdict {
  const found = (kind: KnownAlias['kind'], value: string | undefined) => leadingTo(contacts, kind, value);
  const person = new Set([...found('user_id', claim.userId), ...found('user_id', claim.formerUserId)]);
  let hasId = claim.userId !== undefined || [...person].some(hasOwnId);
  for (const contact of [...found('phone', claim.formerPhoneKey), ...found('phone', claim.phoneKey)]) {
    const isFirstWord = person.size === 0 && claim.userId === undefined;
    if (!isFirstWord && hasId && hasOwnId(contact)) continue;
    person.add(contact);
    hasId ||= hasOwnId(contact);
  }
  const others = found('phone', claim.phoneKey).filter((contact) => !person.has(contact));
  const takesPhone = claim.phoneKey !== undefined && !isContradicted(claim, [...person], others);
  return { person: [...person].sort(byWhoStays(claim)), takesPhone, losePhone: takesPhone ? others : [] };
}

/** Those with the alias first; what is only shown of a contact counts where aliases were never written. */
function leadingTo(contacts: KnownContact[], kind: KnownAlias['kind'], value: string | undefined): KnownContact[] {
  if (value === undefined) return [];
  const shows = ({ phoneKey, userId }: KnownContact) => (kind === 'phone' ? phoneKey : userId) === value;
  const knownBy = contacts.filter((contact) => hasAlias(contact, kind, value));
  return [...knownBy, ...contacts.filter((contact) => shows(contact) && !knownBy.includes(contact))];
}

function hasAlias({ aliases }: KnownContact, kind: KnownAlias['kind'], value: string | undefined): boolean {
  return aliases.some((alias) => alias.kind === kind && alias.value === value);
}

/** An id that was last named before the number changed has gone with the former number: WhatsApp gives a new one with the new number. */
function hasOwnId({ userId, aliases }: KnownContact): boolean {
  const phone = aliases.find(({ kind }) => kind === 'phone');
  const ids = aliases.filter(({ kind }) => kind === 'user_id');
  if (ids.length === 0) return userId !== null;
  return ids.some(({ saidAtMs }) => saidAtMs === null || saidAtMs >= (phone?.saidAtMs ?? Number.NEGATIVE_INFINITY));
}

/** A message that comes late, or once more, must not bring a number back to whom it belonged before. */
function isContradicted(claim: Claim, person: KnownContact[], others: KnownContact[]): boolean {
  const isLater = ({ saidAtMs }: KnownAlias) => saidAtMs !== null && saidAtMs > claim.saidAtMs;
  const numbersOf = (contacts: KnownContact[]) => contacts.flatMap(({ aliases }) => aliases).filter(({ kind }) => kind === 'phone');
  const isItself = ({ value }: KnownAlias) => value === claim.phoneKey;
  return (
    numbersOf(others).some((alias) => isItself(alias) && isLater(alias)) ||
    numbersOf(person).some((alias) => !isItself(alias) && isLater(alias))
  );
}

/** The contact of the number stays: from a number alone, and from both, a webhook finds its workflow. */
function byWhoStays(claim: Claim): (one: KnownContact, other: KnownContact) => number {
  const rank = (contact: KnownContact) => {
    if (!contact.hasConversation) return 3;
    if (hasAlias(contact, 'phone', claim.phoneKey)) return 0;
    return hasAlias(contact, 'user_id', claim.userId) ? 1 : 2;
  };
  return (one, other) => rank(one) - rank(other) || (one.id < other.id ? -1 : 1);
}
