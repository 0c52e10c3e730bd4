import { Role, type RoleMask } from "./role.ts";

/**
 * What a parent does to a node, as bits.
 *
 * @see spec/graph.md section 3
 */
export const Permissions = {
  /** Relies on the content being that of one moment. */
  consistentRead: 1,
  /** Changes visible content. */
  write: 2,
  /** Writes that keep visible content. */
  writeUnchanged: 4,
  /** Changes the length, also by writing beyond the end. */
  resize: 8,
} as const;

/** {@link Permissions} bits. */
export type Permission = number;

export const ALL_PERMISSIONS: Permission = 15;

/** Permissions by name, as options write them. */
export type PermissionName = "consistent-read" | "write" | "write-unchanged" | "resize";

/** What a parent takes, and what it lets the node's other parents take. */
export interface PermissionSet {
  readonly perm: Permission;
  readonly shared: Permission;
}

const NAMES: readonly (readonly [Permission, PermissionName, string])[] = [
  [Permissions.consistentRead, "consistent-read", "consistent read"],
  [Permissions.write, "write", "write"],
  [Permissions.writeUnchanged, "write-unchanged", "write unchanged"],
  [Permissions.resize, "resize", "resize"],
];

/**
 * Returns the bits of permission names.
 *
 * @throws RangeError a name is none: it would take nothing without a word
 */
export function permissionMask(names: Iterable<PermissionName>): Permission {
  let mask = 0;
  for (const wanted of names) {
    const found = NAMES.find(([, name]) => name === wanted);
    if (found === undefined) {
      const allowed = NAMES.map(([, name]) => name).join(", ");
      throw new RangeError(`'${wanted}' is no permission; there are ${allowed}`);
    }
    mask |= found[0];
  }
  return mask;
}

/** Returns the names of permission bits, lowest first. */
export function permissionNames(mask: Permission): PermissionName[] {
  return NAMES.filter(([bit]) => (mask & bit) !== 0).map(([, name]) => name);
}

/** Returns permissions as messages write them: `"write, resize"`. */
export function formatPermissions(mask: Permission): string {
  return NAMES.filter(([bit]) => (mask & bit) !== 0)
    .map(([, , text]) => text)
    .join(", ");
}

/** From what a node computes the permissions on one of its children. Pure data. */
export interface ChildPermissionsInput {
  /** What the node's parents take together. */
  readonly perm: Permission;
  /** What all of the node's parents share. All when there is none. */
  readonly shared: Permission;
  /** Whether the node has a parent. */
  readonly hasParents: boolean;
  /** Whether the node is, or after the reopen in progress will be, writable. */
  readonly writable: boolean;
  /** `false` after the node was inactivated. */
  readonly active: boolean;
}

/** Permissions of a filtered child: those of the node itself. */
export function filterPermissions(input: ChildPermissionsInput): PermissionSet {
  return { perm: input.perm, shared: input.shared };
}

/**
 * Returns the permissions that a driver without wishes of its own takes on a child.
 *
 * @param role - the child's role
 * @see spec/graph.md section 3.1
 */
export function defaultChildPermissions(
  role: RoleMask,
  input: ChildPermissionsInput,
): PermissionSet {
  if ((role & Role.filtered) !== 0) return filterPermissions(input);
  if ((role & Role.cow) !== 0) return backingPermissions(input);
  return storagePermissions(role, input);
}

const { consistentRead, write, writeUnchanged, resize } = Permissions;

function backingPermissions({ perm, shared, active }: ChildPermissionsInput): PermissionSet {
  // The backing node may change only if nobody minds that the overlay's content changes with it.
  const writers = (shared & write) !== 0 || !active ? write | resize : 0;
  return { perm: perm & consistentRead, shared: writers | consistentRead | writeUnchanged };
}

function storagePermissions(role: RoleMask, input: ChildPermissionsInput): PermissionSet {
  let { perm, shared } = input;
  if ((role & Role.metadata) !== 0) {
    if (input.writable) perm |= write | resize;
    perm |= consistentRead;
    shared &= ~(write | resize);
  }
  if ((role & Role.data) !== 0) {
    // A write that keeps the guest's content can still change what is stored, and where it ends.
    if ((perm & writeUnchanged) !== 0) perm |= write;
    if ((perm & write) !== 0) perm |= resize;
    shared &= ~resize;
  }
  if (!input.active) shared |= write | resize;
  return { perm, shared };
}
