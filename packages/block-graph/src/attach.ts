import { checkRole, type PermissionSet, Role, type RoleMask } from "@blocklayer/driver";
import { assert, BlockError } from "@blocklayer/errors";
import type { BlockNode } from "./block-node.ts";
import { subtreeContains } from "./chain.ts";
import { Edge } from "./edge.ts";
import type { GraphCore } from "./graph-core.ts";
import { releaseOrphans } from "./node-life.ts";
import type { EdgeParent } from "./parent.ts";
import { switchOver } from "./switch-over.ts";

/** How a parent that is not a node holds a node. */
export interface RootOptions {
  /** The edge's name, as messages show it: `"root"`, `"main node"`. */
  readonly name: string;
  /** `Permissions` bits that the parent takes. */
  readonly perm: number;
  /** `Permissions` bits that it lets others take. */
  readonly shared: number;
  /** Default filtered and primary: it sees the node's data as they are. */
  readonly role?: RoleMask;
}

/**
 * Attaches a parent that is not a node.
 *
 * @throws BlockError `EPERM` the permissions conflict with those of others; `ENOMEDIUM` the node is closing
 */
export async function attachRoot(
  core: GraphCore,
  parent: EdgeParent,
  node: BlockNode,
  options: RootOptions,
): Promise<Edge> {
  assert(parent.kind !== "node", "a node attaches children as children");
  const edge = new Edge(parent, options.name, options.role ?? ROOT_ROLE, node, options);
  await linkEdge(core, edge);
  return edge;
}

const ROOT_ROLE: RoleMask = Role.filtered | Role.primary;

/** Detaches a root edge, and closes its node if that was the last owner. Never refused; twice is harmless. */
export async function detachRoot(core: GraphCore, edge: Edge): Promise<void> {
  if (!edge.isAttached) return;
  const bereft = await switchOver(core, {
    apply: () => {
      if (edge.isAttached) core.links.unlink(edge);
      return [];
    },
    isLoosening: true,
  });
  const [fault] = await releaseOrphans(bereft);
  if (fault !== undefined) throw fault;
}

/**
 * Changes what a root edge takes and shares.
 *
 * A change that only loosens succeeds whatever happens: at worst the old permissions stay.
 *
 * @throws BlockError `EPERM`
 */
export async function setPermissions(
  core: GraphCore,
  edge: Edge,
  { perm, shared }: PermissionSet,
): Promise<void> {
  assert(edge.parent.kind !== "node", "the permissions of a node's children follow from its own");
  // Taken when the change has its turn: another one may come before it.
  let old: PermissionSet = edge;
  let isTightening = true;
  try {
    await switchOver(core, {
      apply: () => {
        old = { perm: edge.perm, shared: edge.shared };
        isTightening = (perm & ~old.perm) !== 0 || (old.shared & ~shared) !== 0;
        Object.assign(edge, { perm, shared });
        return edge.isAttached ? [edge.node] : [];
      },
      undo: () => void Object.assign(edge, old),
    });
  } catch (error) {
    if (isTightening) throw error;
    core.log(`${edge.parent.describe()} keeps its permissions: ${String(error)}`);
  }
}

/** Links a new edge, with its permissions. */
export function linkEdge(core: GraphCore, edge: Edge): Promise<BlockNode[]> {
  return switchOver(core, {
    apply: () => {
      checkOpen(edge.node);
      core.links.link(edge);
      return [];
    },
  });
}

/** @throws BlockError `ENOMEDIUM` nobody can become the node's parent any more */
export function checkOpen(node: BlockNode): void {
  if (node.state === "open" || node.state === "opening") return;
  throw new BlockError("ENOMEDIUM", `Node '${node.name}' is closed`, { node: node.name });
}

/**
 * Checks that a node can become the child `name` of another.
 *
 * @throws BlockError `EINVAL` it would create a cycle, the role is impossible, or there is such a child
 */
export function checkChild(
  parent: BlockNode,
  name: string,
  role: RoleMask,
  child: BlockNode,
): void {
  checkOpen(child);
  checkCycle(parent, name, child);
  const context = { node: parent.name, child: name };
  const wrong = checkRole(role) ?? unique(parent, name, role);
  if (wrong !== undefined) throw new BlockError("EINVAL", wrong, context);
}

/** @throws BlockError `EINVAL` the child stands above the parent */
export function checkCycle(parent: BlockNode, name: string, child: BlockNode): void {
  if (!subtreeContains(child, parent)) return;
  throw new BlockError(
    "EINVAL",
    `Making '${child.name}' a ${name} child of '${parent.name}' would create a cycle`,
    { node: parent.name, child: name },
  );
}

function unique(parent: BlockNode, name: string, role: RoleMask): string | undefined {
  if (parent.children.has(name)) return `Node '${parent.name}' has a child '${name}' already`;
  const once = role & (Role.filtered | Role.cow | Role.primary);
  for (const edge of parent.children.values()) {
    if ((edge.role & once) !== 0) {
      return `Child '${name}' of node '${parent.name}' cannot have the role of child '${edge.name}'`;
    }
  }
  return undefined;
}
