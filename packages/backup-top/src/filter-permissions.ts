import {
  ALL_PERMISSIONS,
  type ChildPermissionsInput,
  type PermissionSet,
  Permissions,
} from "@blocklayer/driver";

const { consistentRead, write, resize } = Permissions;

/**
 * What the filter takes on its target: write, whoever its parents are, since the background copies too. Others may
 * do all but resize; they may write, since the guest itself does when the source is in the target's backing chain.
 *
 * @see spec/copy-before-write-and-backup.md section 4.3
 */
export function targetPermissions({ writable, active }: ChildPermissionsInput): PermissionSet {
  if (!active) return { perm: 0, shared: ALL_PERMISSIONS };
  return { perm: writable ? write : 0, shared: ALL_PERMISSIONS & ~resize };
}

/**
 * What the filter takes on its source: nothing while it has no parent, so that it can be opened above a disk in use
 * and be inserted then. With parents, theirs and consistent-read (the rule since 8.1), write if it discards there;
 * and nobody else may write or resize.
 *
 * @see spec/copy-before-write-and-backup.md section 4.3
 */
export function sourcePermissions(
  { perm, shared, hasParents, writable, active }: ChildPermissionsInput,
  discardsSource: boolean,
): PermissionSet {
  if (!(hasParents && active)) return { perm, shared };
  const discards = discardsSource && writable ? write : 0;
  return { perm: perm | consistentRead | discards, shared: shared & ~(write | resize) };
}
