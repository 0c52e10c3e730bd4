import {
  ALL_PERMISSIONS,
  type BlockDriver,
  defaultChildPermissions,
  formatPermissions,
  type PermissionSet,
  Permissions,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { isAligned } from "@blocklayer/offsets";
import type { BlockNode } from "./block-node.ts";
import { parentsFirst } from "./drain.ts";
import type { Edge } from "./edge.ts";

/** The permissions that nodes get when a plan is carried out. */
export interface PermissionPlan {
  /** Nodes whose driver has to be told, parents first. */
  readonly grants: readonly { readonly node: BlockNode; readonly granted: PermissionSet }[];
  /** Gives the edges back what they had. */
  undo(): void;
}

/**
 * Computes, on the graph as it is linked now, the permissions of everything below `roots`, checks them, and
 * writes them to the edges. Synchronous; drivers are asked, not yet told.
 *
 * Every parent is visited before its children, so no node is judged by an edge that is not updated yet.
 *
 * @throws BlockError `EPERM` two parents of a node do not tolerate each other, a node cannot be written, a
 *   driver refuses; the edges are as they were
 * @see spec/graph.md section 3.2
 */
export function planPermissions(roots: Iterable<BlockNode>): PermissionPlan {
  const saved: { readonly edge: Edge; readonly perm: number; readonly shared: number }[] = [];
  const undo = (): void => {
    for (const { edge, perm, shared } of saved.toReversed()) Object.assign(edge, { perm, shared });
  };
  const grants: { node: BlockNode; granted: PermissionSet }[] = [];
  try {
    for (const node of parentsFirst(roots)) {
      const granted = checkNode(node);
      for (const edge of node.children.values()) {
        saved.push({ edge, perm: edge.perm, shared: edge.shared });
        Object.assign(edge, childPermissions(edge, node, granted));
      }
      if (!samePermissions(node.granted, granted)) grants.push({ node, granted });
    }
  } catch (error) {
    undo();
    throw error;
  }
  return { grants, undo };
}

export function samePermissions(left: PermissionSet | undefined, right: PermissionSet): boolean {
  return left?.perm === right.perm && left.shared === right.shared;
}

/** What the parents of a node take together, and what all of them share. */
export function cumulativePermissions(node: BlockNode): PermissionSet {
  let perm = 0;
  let shared = ALL_PERMISSIONS;
  for (const edge of node.parents) {
    perm |= edge.perm;
    shared &= sharedBy(edge);
  }
  return { perm, shared };
}

/** The permissions that a node takes on a child. */
export function childPermissions(edge: Edge, node: BlockNode, own: PermissionSet): PermissionSet {
  const input = {
    ...own,
    hasParents: node.parents.size > 0,
    // An inactive node stores nothing, whatever its options say.
    writable: !node.readOnly && node.active,
    active: node.active,
  };
  // While a node opens there is no driver to ask; its role alone decides.
  const driver = node.driver as BlockDriver | undefined;
  const { perm, shared } =
    driver?.childPermissions?.(edge, input) ?? defaultChildPermissions(edge.role, input);
  return { perm, shared: edge.node.options.forceShare ? ALL_PERMISSIONS : shared };
}

function checkNode(node: BlockNode): PermissionSet {
  checkConflicts(node);
  const granted = cumulativePermissions(node);
  const { perm } = granted;
  const isWritten = (perm & (Permissions.write | Permissions.writeUnchanged)) !== 0;
  if (isWritten && (node.readOnly || !node.active)) throw readOnlyError(node);
  const driver = node.driver as BlockDriver | undefined;
  if (driver === undefined) return granted;
  if (
    isWritten &&
    (perm & Permissions.resize) === 0 &&
    !isAligned(node.size, node.limits.requestAlignment)
  ) {
    throw new BlockError(
      "EPERM",
      "Cannot get 'write' permission without 'resize': Image size is not a multiple of request alignment",
      { node: node.name, size: node.size, requestAlignment: node.limits.requestAlignment },
    );
  }
  if (!samePermissions(node.granted, granted)) driver.checkPermissions?.(granted);
  return granted;
}

function readOnlyError(node: BlockNode): BlockError {
  const message = node.isBecomingReadOnly
    ? `Read-only block node '${node.name}' cannot support read-write users`
    : "Block node is read-only";
  return new BlockError("EPERM", message, { node: node.name });
}

function checkConflicts(node: BlockNode): void {
  for (const taker of node.parents) {
    for (const sharer of node.parents) {
      if (taker === sharer) continue;
      const refused = taker.perm & ~sharedBy(sharer);
      if (refused !== 0) throw conflict(node, refused, taker, sharer);
    }
  }
}

function sharedBy(edge: Edge): number {
  return edge.node.options.forceShare ? ALL_PERMISSIONS : edge.shared;
}

function conflict(node: BlockNode, refused: number, taker: Edge, sharer: Edge): BlockError {
  const uses = (edge: Edge): string =>
    `${edge.parent.describe()} (uses node '${node.name}' as '${edge.name}' child)`;
  return new BlockError(
    "EPERM",
    `Permission conflict on node '${node.name}': permissions '${formatPermissions(refused)}' are both required by ${uses(taker)} and unshared by ${uses(sharer)}.`,
    { node: node.name, permissions: formatPermissions(refused) },
  );
}
