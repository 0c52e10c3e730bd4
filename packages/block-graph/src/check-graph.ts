import { assert } from "@blocklayer/errors";
import type { BlockNode } from "./block-node.ts";
import { dueFrom } from "./drain.ts";
import type { Edge } from "./edge.ts";
import type { Graph } from "./graph.ts";
import { parentNode } from "./links.ts";
import { childPermissions, cumulativePermissions, samePermissions } from "./permission-update.ts";

/**
 * Checks everything that holds for a graph between two turns: links in both directions, no circle, permissions
 * that tolerate each other and follow from those above, the equations of drained sections.
 *
 * For tests and simulators.
 *
 * @returns a text that is the same for graphs that are the same: nodes, edges, permissions, freezes, drains
 * @throws Error (assertion) naming what does not hold
 */
export function checkGraph(graph: Graph): string {
  const nodes = graph.nodes();
  for (const node of nodes) {
    checkLinks(node);
    checkNoCircle(node);
    checkPermissions(node);
    checkQuiesce(node);
  }
  return nodes.map(describeNode).sort(byText).join("\n");
}

function checkLinks(node: BlockNode): void {
  for (const edge of node.parents) {
    assert(edge.isAttached && edge.node === node, () => `${describeEdge(edge)} leads to its node`);
    const parent = parentNode(edge);
    if (parent === undefined) continue;
    assert(parent.children.get(edge.name) === edge, () => `${describeEdge(edge)} is its parent's`);
  }
  for (const edge of node.children.values()) {
    assert(edge.node.parents.has(edge), () => `${describeEdge(edge)} is known below`);
    assert(edge.parent === node, () => `${describeEdge(edge)} is known above`);
  }
  const isHeld =
    node.isOwned || node.parents.size > 0 || node.uses.size > 0 || node.changeCount > 0;
  assert(isHeld, () => `${node.describe()} has an owner`);
}

function checkNoCircle(top: BlockNode): void {
  const below = new Set<BlockNode>();
  const visit = (node: BlockNode): void => {
    for (const { node: child } of node.children.values()) {
      assert(child !== top, () => `${top.describe()} is not below itself`);
      if (below.has(child)) continue;
      below.add(child);
      visit(child);
    }
  };
  visit(top);
}

function checkPermissions(node: BlockNode): void {
  for (const taker of node.parents) {
    for (const sharer of node.parents) {
      if (taker === sharer || node.options.forceShare) continue;
      const refused = taker.perm & ~sharer.shared;
      assert(refused === 0, () => `${describeEdge(taker)} is tolerated by ${describeEdge(sharer)}`);
    }
  }
  const own = cumulativePermissions(node);
  // A driver that failed to give something up may hold more than it needs, never less.
  const held = node.granted;
  assert(
    held !== undefined && (own.perm & ~held.perm) === 0 && (held.shared & ~own.shared) === 0,
    () => `the driver of ${node.describe()} holds what its parents need`,
  );
  for (const edge of node.children.values()) {
    assert(
      samePermissions(edge, childPermissions(edge, node, own)),
      () => `${describeEdge(edge)} has what follows from its parent's permissions`,
    );
  }
}

function checkQuiesce(node: BlockNode): void {
  const { core } = node.graph;
  let imposed = core.drainAllCount;
  for (const edge of node.children.values()) imposed += edge.quiesceCount;
  for (const edge of node.parents) {
    imposed += edge.subtreeCount;
    const due = dueFrom(edge, core);
    assert(
      edge.quiesceCount === due,
      () => `${describeEdge(edge)}: told ${edge.quiesceCount}, due ${due}`,
    );
    const ofParent = parentNode(edge)?.subtreeCount ?? 0;
    assert(
      edge.subtreeCount === ofParent,
      () => `${describeEdge(edge)} passes subtree sections on`,
    );
  }
  assert(node.quiesceCount >= imposed, () => `${node.describe()} counts what was imposed on it`);
}

function describeNode(node: BlockNode): string {
  const { readOnly, discard, detectZeroes } = node.options;
  const edges = [...node.children.values()].map(describeEdge).sort(byText);
  const roots = [...node.parents]
    .filter((edge) => parentNode(edge) === undefined)
    .map(describeEdge);
  const blocks = node.operations.size;
  return [
    `${node.name}: ${node.driverName}, ${node.size} bytes, read-only ${readOnly}, ${discard}, ${detectZeroes},`,
    `active ${node.active}, owned ${node.isOwned}, drained ${node.quiesceCount}/${node.subtreeCount}, blocks ${blocks}`,
    ...edges,
    ...roots.sort(byText),
  ].join("\n  ");
}

function byText(left: string, right: string): number {
  if (left === right) return 0;
  return left < right ? -1 : 1;
}

function describeEdge(edge: Edge): string {
  const rights = `${edge.perm}/${edge.shared}`;
  const counts = `frozen ${edge.frozenCount}, told ${edge.quiesceCount}/${edge.subtreeCount}`;
  return `${edge.parent.describe()} -${edge.name}:${edge.role}-> '${edge.node.name}' (${rights}, ${counts})`;
}
