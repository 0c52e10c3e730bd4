import { BlockError } from "@blocklayer/errors";
import type { BlockNode } from "./block-node.ts";
import { parentNode } from "./links.ts";

/** How many nodes may stand above each other. Requests and drains descend and climb by recursion. */
export const MAX_GRAPH_DEPTH = 256;

/**
 * Checks that no path through any of the nodes is too long.
 *
 * @throws BlockError `ELOOP`
 */
export function checkDepth(nodes: Iterable<BlockNode>): void {
  const above = new Map<BlockNode, number>();
  const below = new Map<BlockNode, number>();
  for (const node of nodes) {
    const depth = longest(node, parentsOf, above) + longest(node, childrenOf, below) - 1;
    if (depth <= MAX_GRAPH_DEPTH) continue;
    const message = `Node '${node.name}' would be in a chain of ${depth} nodes, more than ${MAX_GRAPH_DEPTH}`;
    throw new BlockError("ELOOP", message, { node: node.name, depth, limit: MAX_GRAPH_DEPTH });
  }
}

function longest(
  node: BlockNode,
  next: (node: BlockNode) => readonly BlockNode[],
  known: Map<BlockNode, number>,
): number {
  const found = known.get(node);
  if (found !== undefined) return found;
  let length = 0;
  for (const neighbour of next(node)) length = Math.max(length, longest(neighbour, next, known));
  known.set(node, length + 1);
  return length + 1;
}

function parentsOf(node: BlockNode): readonly BlockNode[] {
  return [...node.parents].map(parentNode).filter((parent) => parent !== undefined);
}

function childrenOf(node: BlockNode): readonly BlockNode[] {
  return [...node.children.values()].map((edge) => edge.node);
}
