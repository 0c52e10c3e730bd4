import { Role } from "@blocklayer/driver";
import type { BlockNode } from "./block-node.ts";
import type { Edge } from "./edge.ts";

/*
 * Walking chains. A chain goes down along the filtered child of a filter and the backing child of anything else.
 * spec/graph.md section 2.
 */

/** The edge to the child whose data the node shows unchanged. */
export function filterChild(node: BlockNode): Edge | undefined {
  return childWithRole(node, Role.filtered);
}

/** The edge to the backing node; filters have none. */
export function cowChild(node: BlockNode): Edge | undefined {
  return childWithRole(node, Role.cow);
}

/** The next edge down the chain, whichever kind it is. */
export function filterOrCowChild(node: BlockNode): Edge | undefined {
  return filterChild(node) ?? cowChild(node);
}

/** The edge to the child that a file name stands for best. */
export function primaryChild(node: BlockNode): Edge | undefined {
  return childWithRole(node, Role.primary);
}

/** The first node from `node` down that is not a filter. */
export function skipFilters(node: BlockNode): BlockNode {
  let found = node;
  for (let edge = ownFilterChild(found); edge !== undefined; edge = ownFilterChild(found)) {
    found = edge.node;
  }
  return found;
}

/** The first node from `node` down that is not a filter or that was put there by name. */
export function skipImplicitFilters(node: BlockNode): BlockNode {
  let found = node;
  while (found.isImplicit) {
    const edge = ownFilterChild(found);
    if (edge === undefined) break;
    found = edge.node;
  }
  return found;
}

/** The next layer that stores data of its own; filters are skipped on both sides. */
export function backingChainNext(node: BlockNode): BlockNode | undefined {
  const edge = cowChild(skipFilters(node));
  return edge === undefined ? undefined : skipFilters(edge.node);
}

/** Whether `node` is `top` or below it in its chain. */
export function chainContains(top: BlockNode, node: BlockNode): boolean {
  for (let at: BlockNode | undefined = top; at !== undefined; at = filterOrCowChild(at)?.node) {
    if (at === node) return true;
  }
  return false;
}

/**
 * The layer right above `node` in the chain that starts at `active`; filters are skipped on both sides.
 *
 * @returns `undefined` when `node` is the topmost layer or not in the chain
 */
export function findOverlay(active: BlockNode, node: BlockNode): BlockNode | undefined {
  const wanted = skipFilters(node);
  let overlay = skipFilters(active);
  for (
    let below = backingChainNext(overlay);
    below !== undefined;
    below = backingChainNext(overlay)
  ) {
    if (below === wanted) return overlay;
    overlay = below;
  }
  return undefined;
}

/** The edges of the chain from `top` down to `base`, which is not entered; to the end without one. */
export function chainEdges(top: BlockNode, base?: BlockNode): Edge[] {
  const edges: Edge[] = [];
  for (let at = top; at !== base; ) {
    const edge = filterOrCowChild(at);
    if (edge === undefined) break;
    edges.push(edge);
    at = edge.node;
  }
  return edges;
}

/** Whether `node` is `top` or somewhere below it, by whatever edges. */
export function subtreeContains(top: BlockNode, node: BlockNode): boolean {
  return subtree(top).has(node);
}

/** All nodes from `top` down, `top` first. */
export function subtree(top: BlockNode): Set<BlockNode> {
  const found = new Set([top]);
  // A set that grows while it is iterated visits what was added.
  for (const node of found) for (const edge of node.children.values()) found.add(edge.node);
  return found;
}

function ownFilterChild(node: BlockNode): Edge | undefined {
  // `raw` shows its file unchanged too, but is a format: only formal filters are skipped.
  return node.definition.isFilter ? filterChild(node) : undefined;
}

function childWithRole(node: BlockNode, role: number): Edge | undefined {
  for (const edge of node.children.values()) if ((edge.role & role) !== 0) return edge;
  return undefined;
}
