import type { BlockNode, BlockOperation, Edge, Graph } from "@blocklayer/block-graph";
import { byText, describeEdge } from "./graph-model.ts";

const OPERATIONS: readonly BlockOperation[] = [
  "backup-source",
  "backup-target",
  "commit-target",
  "drive-del",
  "mirror-source",
  "replace",
  "resize",
  "stream",
];

/**
 * The graph under test in the words of the model: what is there, and what it may do.
 *
 * @param windowSize - bytes of a window of a raw node
 */
export function productGraph(graph: Graph, windowSize: number): string {
  const lines = graph.nodes().map((node) => {
    const { name, options, isOwned, uses } = node;
    const { label = "", offset } = node.spec.driverOptions as { label?: string; offset?: number };
    const shows = offset === undefined ? label : offset / windowSize;
    // No backing node may be mirrored; nobody else says so here.
    const backs = node.operations.reasonAgainst("mirror-source") !== undefined;
    const children = [...node.children.values()].map(describeEdge).sort(byText);
    return `${name}: ${shows}, backing ${backs}, read-only ${options.readOnly}, owned ${isOwned}, uses ${uses.size}${children.join("")}`;
  });
  const roots = graph
    .nodes()
    .flatMap((node) => rootEdges(node))
    .map((edge) => `${edge.parent.describe()}${describeEdge(edge)}`);
  return [...lines, ...roots].sort(byText).join("\n");
}

/**
 * Everything that a change which failed has to leave as it was, requests, lengths and drained sections aside: nodes, links and
 * their order, permissions, options, freezes, what management commands are kept away, watchers.
 */
export function fingerprint(graph: Graph): string {
  return graph.nodes().map(describeNode).sort(byText).join("\n");
}

function describeNode(node: BlockNode): string {
  const { name, driverName, limits, active, isOwned, granted, state } = node;
  const { driverOptions, written, autoReadOnly } = node.spec;
  const reasons = OPERATIONS.map((one) => node.operations.reasonAgainst(one) ?? "");
  const facts = { limits, active, isOwned, granted, state, driverOptions, written, reasons };
  const counts = [node.uses.size, node.observers.length, node.operations.size, node.changeCount];
  return [
    `${name}: ${driverName} ${JSON.stringify(facts)} ${autoReadOnly} ${counts.join("/")}`,
    JSON.stringify(node.options),
    ...[...node.children.values()].map((edge) => describeLink(edge)),
    ...[...node.parents].map((edge) => describeLink(edge)),
  ].join("\n  ");
}

function describeLink(edge: Edge): string {
  const { parent, name, role, node, perm, shared, frozenCount, isAttached } = edge;
  const link = `${parent.describe()} -${name}:${role}-> '${node.name}'`;
  return `${link} ${perm}/${shared} frozen ${frozenCount} ${isAttached}`;
}

function rootEdges(node: BlockNode): Edge[] {
  return [...node.parents].filter(({ parent }) => parent.kind !== "node");
}
