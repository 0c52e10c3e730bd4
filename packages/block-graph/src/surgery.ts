import { Role, type RoleMask } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { checkChild, checkCycle, checkOpen } from "./attach.ts";
import type { BlockNode } from "./block-node.ts";
import { cowChild, filterChild, subtree } from "./chain.ts";
import type { GraphStep } from "./change.ts";
import { Edge } from "./edge.ts";
import { roleOf } from "./option-tree.ts";

/*
 * The steps of surgery, as data: nothing happens before `Graph.change` carries them out. Each sees the links as
 * the steps before it left them. spec/graph.md section 4.
 */

export interface ReplaceNodeOptions {
  /**
   * Whether edges that must not follow (a job's, one inside `to`'s own subtree) stay as they are; `false`
   * makes one of them an error. Default `true`.
   */
  readonly skip?: boolean;
}

/**
 * Lets the parents of `from` have `to` instead.
 *
 * Edges whose parent stays at its node, and edges inside `to`'s own subtree (which would make a circle), are
 * left alone.
 *
 * @throws BlockError (by the change) `EPERM` an edge is frozen; `EINVAL` an edge may not follow
 */
export function replaceNode(
  from: BlockNode,
  to: BlockNode,
  { skip = true }: ReplaceNodeOptions = {},
): GraphStep {
  return step("replace-node", [from, to], () => moveParents(from, to, skip));
}

/** Puts an overlay, or a filter without child, on top of a node: the node's parents get `top` and it gets the node. */
export function append(top: BlockNode, node: BlockNode): GraphStep {
  return step("append", [top, node], () => {
    const { name, role } = childToStandOn(top);
    checkChild(top, name, role, node);
    link(top, name, role, node);
    moveParents(node, top, true);
  });
}

/** Takes a filter out: its parents get its child. */
export function dropFilter(filter: BlockNode): GraphStep {
  // The child is known for certain only when the change runs.
  return lazyStep(
    "drop-filter",
    () => [filter, ...below(filterChild(filter))],
    () => {
      const edge = filterChild(filter);
      if (edge === undefined) {
        const message = `Node '${filter.name}' is not a filter`;
        throw new BlockError("EINVAL", message, { node: filter.name });
      }
      moveParents(filter, edge.node, true);
      unlink(edge);
    },
  );
}

/** Gives a node another backing node, or none. */
export function setBacking(node: BlockNode, backing: BlockNode | undefined): GraphStep {
  return lazyStep(
    "set-backing",
    () => [node, ...below(cowChild(node)), ...(backing === undefined ? [] : [backing])],
    () => moveBacking(node, backing),
  );
}

/** Lets one edge lead to another node. */
export function replaceChild(edge: Edge, node: BlockNode): GraphStep {
  return lazyStep(
    "replace-child",
    () => [edge.node, node],
    () => {
      checkMovable(edge, node);
      if (edge.parent.kind === "node") checkCycle(edge.parent as BlockNode, edge.name, node);
      node.graph.core.links.repoint(edge, node);
    },
  );
}

/** Gives a node one more child. */
export function attachChild(
  parent: BlockNode,
  name: string,
  role: RoleMask,
  node: BlockNode,
): GraphStep {
  return step("attach-child", [parent, node], () => {
    checkChild(parent, name, role, node);
    link(parent, name, role, node);
  });
}

/** Takes a child away from its parent. */
export function detachChild(edge: Edge): GraphStep {
  return lazyStep(
    "detach-child",
    () => {
      if (!edge.isAttached) return [];
      return edge.parent.kind === "node" ? [edge.node, edge.parent as BlockNode] : [edge.node];
    },
    () => {
      if (edge.isAttached) unlink(edge);
    },
  );
}

/** Whether an edge to a node that is replaced by `to` may follow it there. */
export function mayFollow(edge: Edge, to: BlockNode): boolean {
  if (edge.parent.staysAtNode === true) return false;
  // An edge inside the new node's own subtree would lead back up and close a circle.
  for (const node of subtree(to)) {
    for (const inner of node.children.values()) if (inner === edge) return false;
  }
  return true;
}

/** Moves a backing link, within a step. */
export function moveBacking(node: BlockNode, backing: BlockNode | undefined): void {
  const edge = cowChild(node);
  if (edge?.node === backing) return;
  if (edge?.isFrozen === true) throw frozenLink(node, edge);
  if (backing === undefined) {
    if (edge !== undefined) unlink(edge);
    return;
  }
  if (!node.definition.supportsBacking) {
    throw new BlockError(
      "EINVAL",
      `Driver '${node.driverName}' of node '${node.name}' does not support backing files`,
      { node: node.name },
    );
  }
  checkOpen(backing);
  checkCycle(node, "backing", backing);
  if (edge === undefined) {
    checkChild(node, "backing", Role.cow, backing);
    link(node, "backing", Role.cow, backing);
  } else {
    node.graph.core.links.repoint(edge, backing);
  }
}

export function frozenLink(node: BlockNode, edge: Edge): BlockError {
  return new BlockError(
    "EPERM",
    `Cannot change frozen '${edge.name}' link from '${node.name}' to '${edge.node.name}'`,
    { node: node.name, child: edge.name },
  );
}

function moveParents(from: BlockNode, to: BlockNode, skip: boolean): void {
  checkOpen(to);
  if (from === to) return;
  for (const edge of [...from.parents]) {
    if (mayFollow(edge, to)) {
      checkMovable(edge, to);
      from.graph.core.links.repoint(edge, to);
    } else if (!skip) {
      const message = `Should not change ${edge.name} link to '${from.name}'`;
      throw new BlockError("EINVAL", message, { node: from.name, child: edge.name });
    }
  }
}

function checkMovable(edge: Edge, to: BlockNode): void {
  checkOpen(to);
  const context = { node: edge.node.name, child: edge.name };
  if (!edge.isAttached) {
    throw new BlockError("ENOMEDIUM", `The '${edge.name}' link was detached`, context);
  }
  if (edge.isFrozen) {
    const message = `Cannot change '${edge.name}' link to '${edge.node.name}'`;
    throw new BlockError("EPERM", message, context);
  }
}

function childToStandOn(top: BlockNode): { readonly name: string; readonly role: RoleMask } {
  if (!top.definition.isFilter) {
    if (!top.definition.supportsBacking) {
      throw new BlockError("EINVAL", "The overlay does not support backing images", {
        node: top.name,
      });
    }
    return { name: "backing", role: Role.cow };
  }
  for (const child of top.definition.children) {
    const role = roleOf(child, top.spec.driverOptions);
    if ((role & Role.filtered) !== 0) return { name: child.name, role };
  }
  throw new BlockError("EINVAL", `Node '${top.name}' has no filtered child`, { node: top.name });
}

function link(parent: BlockNode, name: string, role: RoleMask, node: BlockNode): void {
  // The permissions follow from the parent's; the change computes them next.
  const edge = new Edge(parent, name, role, node, { perm: 0, shared: 0 });
  parent.graph.core.links.link(edge);
}

function unlink(edge: Edge): void {
  if (edge.isFrozen) throw frozenLink(edge.parent as BlockNode, edge);
  edge.node.graph.core.links.unlink(edge);
}

function below(edge: Edge | undefined): readonly BlockNode[] {
  return edge === undefined ? [] : [edge.node];
}

function step(name: string, touches: readonly BlockNode[], apply: () => void): GraphStep {
  return lazyStep(name, () => touches, apply);
}

function lazyStep(name: string, touches: () => readonly BlockNode[], apply: () => void): GraphStep {
  return {
    name,
    get touches() {
      return touches();
    },
    prepare: () => undefined,
    apply: () => {
      apply();
      return undefined;
    },
  };
}
