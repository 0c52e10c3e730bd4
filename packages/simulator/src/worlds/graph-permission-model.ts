import { ALL_PERMISSIONS, formatPermissions, type PermissionSet } from "@blocklayer/driver";
import type { ModelEdge, ModelNode } from "./graph-model.ts";

const [CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE] = [1, 2, 4, 8] as const;
const WRITERS = WRITE | RESIZE;

/** What the parents of a node take together, and what all of them share. */
export function cumulative(parents: readonly ModelEdge[]): PermissionSet {
  let perm = 0;
  let shared = ALL_PERMISSIONS;
  for (const edge of parents) {
    perm |= edge.perm;
    shared &= edge.shared;
  }
  return { perm, shared };
}

/**
 * Why the parents of a node can not be there together; `undefined` when they can.
 *
 * @see spec/graph.md section 3.2
 */
export function refusal(
  node: ModelNode,
  parents: readonly ModelEdge[],
  isActive: boolean,
): string | undefined {
  for (const taker of parents) {
    for (const sharer of parents) {
      const refused = taker === sharer ? 0 : taker.perm & ~sharer.shared;
      if (refused === 0) continue;
      const what = formatPermissions(refused);
      return `${taker.parent.name} takes ${what} of ${node.name}, unshared by ${sharer.parent.name}`;
    }
  }
  const { perm } = cumulative(parents);
  if ((perm & (WRITE | WRITE_UNCHANGED)) === 0) return undefined;
  if (node.readOnly) return `${node.name} is read-only`;
  return isActive ? undefined : `${node.name} is inactive`;
}

/**
 * What a node takes on a child, by the table of the specification.
 *
 * @see spec/graph.md section 3.1
 */
export function modelPermissions(
  node: ModelNode,
  edge: ModelEdge,
  parents: readonly ModelEdge[],
  isActive: boolean,
): PermissionSet {
  const own = cumulative(parents);
  if (edge.role === "extra") return dataPermissions(own, isActive);
  if (edge.role === "backing") return backingPermissions(own, isActive);
  switch (node.kind) {
    case "filter":
      return { perm: own.perm, shared: node.isJealous ? own.shared & ~WRITE : own.shared };
    case "overlay":
      if (!node.isImage) return dataPermissions(own, isActive);
      return imagePermissions(own, !node.readOnly && isActive, isActive);
    case "raw": {
      // Without a window it shows all of its file, as a filter does.
      if (node.isApart) return own;
      // A window writes only when its parents do.
      const { perm, shared } = dataPermissions(own, isActive);
      return { perm: (perm & ~WRITERS) | (own.perm & WRITERS), shared };
    }
    case "disk":
      return own;
  }
}

function dataPermissions({ perm, shared }: PermissionSet, isActive: boolean): PermissionSet {
  let taken = perm;
  if ((taken & WRITE_UNCHANGED) !== 0) taken |= WRITE;
  if ((taken & WRITE) !== 0) taken |= RESIZE;
  return { perm: taken, shared: (shared & ~RESIZE) | (isActive ? 0 : WRITERS) };
}

function imagePermissions(
  { perm, shared }: PermissionSet,
  isWritable: boolean,
  isActive: boolean,
): PermissionSet {
  const taken = perm | CONSISTENT_READ | (isWritable ? WRITERS : 0);
  return dataPermissions({ perm: taken, shared: shared & ~WRITERS }, isActive);
}

function backingPermissions({ perm, shared }: PermissionSet, isActive: boolean): PermissionSet {
  const writers = (shared & WRITE) !== 0 || !isActive ? WRITERS : 0;
  return { perm: perm & CONSISTENT_READ, shared: writers | CONSISTENT_READ | WRITE_UNCHANGED };
}
