/**
 * What a child is to its parent, as bits.
 *
 * @see spec/graph.md section 2
 */
export const Role = {
  /** Holds guest data. */
  data: 1,
  /** Holds the driver's metadata. */
  metadata: 2,
  /** Shows the same data as the parent; excludes data, metadata and cow. */
  filtered: 4,
  /** Backing: read where the parent has nothing; excludes the others. */
  cow: 8,
  /** The child that a file name stands for best; at most one. */
  primary: 16,
  /** Data, metadata and primary: the file of an image format. */
  image: 19,
} as const;

/** {@link Role} bits. */
export type RoleMask = number;

/**
 * Returns what is wrong with a role, `undefined` when nothing is.
 *
 * @param role - {@link Role} bits
 */
export function checkRole(role: RoleMask): string | undefined {
  const kinds = role & (Role.data | Role.metadata | Role.filtered | Role.cow);
  if (kinds === 0) return "a child has at least one of the roles data, metadata, filtered, cow";
  if ((role & Role.filtered) !== 0 && kinds !== Role.filtered) {
    return "the role filtered excludes data, metadata and cow";
  }
  if ((role & Role.cow) !== 0 && role !== Role.cow) return "the role cow excludes all others";
  return undefined;
}
