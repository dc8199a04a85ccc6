/** What a key may do: the one table that the routes, their tests and the OpenAPI document share. */

/** The roles of a workspace's keys. The keys of `API_KEYS` may do everything, in every workspace. */
export const ROLES = ['admin', 'operator', 'caller'] as const;
export type Role = (typeof ROLES)[number];

/** The roles with each permission. An empty list: only the keys of `API_KEYS`. */
export const PERMISSIONS = {
  'conversations:read': ['admin', 'operator', 'caller'],
  /** Take over, release, pause, assign, mark as read, close, notes. */
  'conversations:write': ['admin', 'operator'],
  'messages:send': ['admin', 'operator', 'caller'],
  'calls:read': ['admin', 'operator', 'caller'],
  'calls:write': ['admin', 'operator', 'caller'],
  'dead-letters:read': ['admin', 'operator'],
  'dead-letters:write': ['admin', 'operator'],
  'parked-messages:read': ['admin', 'operator'],
  'metrics:read': ['admin', 'operator', 'caller'],
  'workspaces:read': ['admin', 'operator', 'caller'],
  /** Name, time zone, credentials; webhook set-up and synchronisation. */
  'workspaces:write': ['admin'],
  'keys:read': ['admin'],
  'keys:write': ['admin'],
  'audit:read': ['admin'],
  /** Create and delete workspaces, and what concerns all of them at once. */
  'installation:write': [],
} as const satisfies Record<string, readonly Role[]>;

export type Permission = keyof typeof PERMISSIONS;

/** The permission of an operation in the OpenAPI document; `requireApiKey` enforces it. */
export function needs(permission: Permission): { security: { bearer: [Permission] }[] } {
  return { security: [{ bearer: [permission] }] };
}

/** The permission that `needs` gave an operation; undefined if it has none. */
export function permissionOf(operation: { security?: readonly Record<string, readonly string[]>[] | undefined }): Permission | undefined {
  const name = operation.security?.[0]?.bearer?.[0];
  return name !== undefined && Object.hasOwn(PERMISSIONS, name) ? (name as Permission) : undefined;
}

/** Whether a key has a permission. `workspaceId` undefined: a key of `API_KEYS`, which may do everything. */
export function isAllowed({ role, workspaceId }: { role: Role; workspaceId: string | undefined }, permission: Permission): boolean {
  return workspaceId === undefined || (PERMISSIONS[permission] as readonly Role[]).includes(role);
}

/** The table in Markdown, for the OpenAPI document. */
export function permissionTable(): string {
  const rows = Object.entries(PERMISSIONS).map(
    ([permission, roles]) =>
      `| \`${permission}\` | ${ROLES.map((role) => ((roles as readonly Role[]).includes(role) ? 'yes' : '')).join(' | ')} |`,
  );
  return [`| Permission | ${ROLES.join(' | ')} |`, `| --- |${' --- |'.repeat(ROLES.length)}`, ...rows].join('\n');
}
