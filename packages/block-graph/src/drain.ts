import { type BlockDriver, completed } from "@blocklayer/driver";
import type { BlockNode } from "./block-node.ts";
import { subtree } from "./chain.ts";
import type { Edge } from "./edge.ts";
import type { GraphCore } from "./graph-core.ts";
import { type LinkChange, parentNode } from "./links.ts";

/*
 * Drained sections. The counts obey these equations at every moment at which other code runs, so that
 * whatever happens to the graph inside a section, each parent is told of its end as often as of its begin:
 *
 *   node.quiesceCount  = sections begun on the node itself + those of the whole graph
 *                        + sum of quiesceCount over its children's edges + sum of subtreeCount over its parents' edges
 *   node.subtreeCount  = subtree sections begun on the node itself + sum of subtreeCount over its parents' edges
 *   edge.subtreeCount  = subtreeCount of its parent: what the parent imposes on the child
 *   edge.quiesceCount  = quiesceCount of its child less edge.subtreeCount and, if the parent is a node, less the
 *                        sections of the whole graph: what the child imposes on the parent
 *
 * So a section spreads to all parents, upwards; one of a subtree spreads to all children too and from there to
 * their other parents, but not back along the edge it came by. spec/graph.md section 5.
 */

/** A drained section that is open. Ending twice is harmless. */
export interface DrainHold extends Disposable {
  end(): void;
}

/** Begins a drained section without waiting; the requests in flight go on. */
export function beginDrain(node: BlockNode): DrainHold {
  quiesce(node, 1);
  return holdUntil(() => quiesce(node, -1));
}

/** Resolves inside a drained section of the node: nothing is in flight, and nothing new is issued to it. */
export function drain(node: BlockNode): Promise<DrainHold> {
  return quietOrEnd(node.graph.core, beginDrain(node), () => [node]);
}

/** The same for a node and everything below it. */
export function drainSubtree(node: BlockNode): Promise<DrainHold> {
  quiesceSubtree(node, 1);
  const hold = holdUntil(() => quiesceSubtree(node, -1));
  return quietOrEnd(node.graph.core, hold, () => subtree(node));
}

/** The same for all nodes of a graph, those to come included. */
export function drainAll(core: GraphCore): Promise<DrainHold> {
  quiesceAll(core, 1);
  return quietOrEnd(
    core,
    holdUntil(() => quiesceAll(core, -1)),
    () => core.shells,
  );
}

/** Nobody is left drained by a drain that failed, as when a parent's poll rejects. */
async function quietOrEnd(
  core: GraphCore,
  hold: DrainHold,
  nodes: () => Iterable<BlockNode>,
): Promise<DrainHold> {
  try {
    await untilQuiet(core, nodes);
  } catch (error) {
    hold.end();
    throw error;
  }
  return hold;
}

/**
 * Resolves when nothing is in flight at the nodes and at everything above them. The graph may change while this
 * waits, so it is read anew after every wait.
 *
 * Without progress for {@link STUCK_AFTER_MS} it says which requests are in flight.
 */
export async function untilQuiet(core: GraphCore, nodes: () => Iterable<BlockNode>): Promise<void> {
  let wait = findBusy(nodes());
  if (wait === undefined) return;
  const watch = new AbortController();
  reportIfStuck(core, nodes, watch.signal);
  try {
    for (; wait !== undefined; wait = findBusy(nodes())) await wait;
  } finally {
    watch.abort();
  }
}

/** What keeps the nodes or anything above them busy. */
export function findBusy(nodes: Iterable<BlockNode>): Promise<void> | undefined {
  const visited = new Set<BlockNode>();
  for (const node of nodes) {
    const wait = busyAt(node, visited);
    if (wait !== undefined) return wait;
  }
  return undefined;
}

function busyAt(node: BlockNode, visited: Set<BlockNode>): Promise<void> | undefined {
  if (visited.has(node)) return undefined;
  visited.add(node);
  for (const edge of node.parents) {
    const parent = parentNode(edge);
    const wait = parent === undefined ? edge.parent.drainedPoll?.(edge) : busyAt(parent, visited);
    if (wait !== undefined) return wait;
  }
  return node.driverEntering ?? node.io.idle();
}

/** Milliseconds after which a drain that still waits is reported. */
export const STUCK_AFTER_MS = 30_000;

function reportIfStuck(
  core: GraphCore,
  nodes: () => Iterable<BlockNode>,
  signal: AbortSignal,
): void {
  const report = (): void => {
    const drained = new Set<BlockNode>();
    for (const node of nodes()) collectAbove(node, drained);
    const requests = [...drained].flatMap((node) =>
      node.io.requestsInFlight().map((request) => ({ node: node.name, ...request })),
    );
    core.tell("drainStuck", { afterMs: STUCK_AFTER_MS, requests });
    const list = requests.map(
      (at) => `${at.kind} of ${at.length} bytes at ${at.offset} of '${at.node}'`,
    );
    core.log(
      `drain waits for ${STUCK_AFTER_MS} ms, in flight: ${list.join(", ") || "parents only"}`,
    );
  };
  core.env.clock.sleep(STUCK_AFTER_MS, signal).then(report, (error: unknown) => {
    // The drain is over: the sleep was aborted, as it is nearly always.
    if (!signal.aborted) throw error;
  });
}

function collectAbove(node: BlockNode, into: Set<BlockNode>): void {
  if (into.has(node)) return;
  into.add(node);
  for (const edge of node.parents) {
    const parent = parentNode(edge);
    if (parent !== undefined) collectAbove(parent, into);
  }
}

function holdUntil(end: () => void): DrainHold {
  let isOpen = true;
  const endOnce = (): void => {
    if (!isOpen) return;
    isOpen = false;
    end();
  };
  return { end: endOnce, [Symbol.dispose]: endOnce };
}

/** Adds `delta` to a node's sections, and to those of everybody above; `except` is the edge it came down by. */
function quiesce(node: BlockNode, delta: number, except?: Edge): void {
  node.quiesceCount += delta;
  // At an end the driver wakes before its parents send anything; at a begin it goes to sleep after them.
  if (delta < 0) settleDriver(node);
  for (const edge of [...node.parents]) {
    if (edge !== except && edge.isAttached) quiesceParent(edge, delta);
  }
  if (delta > 0) settleDriver(node);
}

function quiesceParent(edge: Edge, delta: number): void {
  edge.quiesceCount += delta;
  const parent = parentNode(edge);
  if (parent !== undefined) {
    quiesce(parent, delta);
    return;
  }
  for (let count = delta; count > 0; count -= 1) edge.parent.drainedBegin?.(edge);
  for (let count = delta; count < 0; count += 1) edge.parent.drainedEnd?.(edge);
}

/** At an end the children go first, so that nobody is told to go on while something below him is drained. */
function quiesceSubtree(node: BlockNode, delta: number, via?: Edge): void {
  node.subtreeCount += delta;
  if (delta > 0) quiesce(node, delta, via);
  for (const edge of [...node.children.values()]) {
    edge.subtreeCount += delta;
    quiesceSubtree(edge.node, delta, edge);
  }
  if (delta < 0) quiesce(node, delta, via);
}

function quiesceAll(core: GraphCore, delta: number): void {
  const nodes = parentsFirst(core.shells);
  core.drainAllCount += delta;
  for (const node of delta > 0 ? nodes : nodes.toReversed()) {
    node.quiesceCount += delta;
    if (delta < 0) settleDriver(node);
    for (const edge of [...node.parents]) {
      if (edge.isAttached && parentNode(edge) === undefined) quiesceParent(edge, delta);
    }
    if (delta > 0) settleDriver(node);
  }
}

/** Tells the driver when the first section begins and when the last one has ended. */
export function settleDriver(node: BlockNode): void {
  const driver = node.driver as BlockDriver | undefined;
  if (driver === undefined || node.state === "closed" || node.driverEntering !== undefined) return;
  const isWanted = node.quiesceCount > 0;
  if (isWanted === node.isDriverQuiet) return;
  if (!isWanted) {
    node.isDriverQuiet = false;
    driver.drainEnd?.();
    return;
  }
  const entering = driver.drainBegin?.();
  if (entering === undefined || entering === completed) {
    node.isDriverQuiet = true;
    return;
  }
  const entered = (): void => {
    node.driverEntering = undefined;
    node.isDriverQuiet = true;
    // The section may have ended meanwhile.
    settleDriver(node);
  };
  node.driverEntering = entering.then(entered, (error: unknown) => {
    node.graph.core.log(`node '${node.name}': the driver did not become quiet: ${String(error)}`);
    entered();
  });
}

/**
 * Brings the counts in order after edges were moved, telling parents of begins before anybody is told of an
 * end, so that a parent that stays drained notices nothing.
 */
export function settleQuiesce(changes: readonly LinkChange[], core: GraphCore): void {
  // What each edge imposed on the node it led to, before anything here spreads along it.
  const imposed = new Map(changes.map(({ edge }) => [edge, edge.subtreeCount]));
  for (const change of changes) imposeOnNew(change, imposed.get(change.edge) ?? 0);
  for (const change of changes) tellParent(change, core, "begins");
  for (const { edge, from, to } of changes) {
    const surplus = imposed.get(edge) ?? 0;
    if (from !== undefined && surplus > 0) quiesceSubtree(from, -surplus, edge);
    if (to === undefined) edge.subtreeCount = 0;
  }
  for (const change of changes) tellParent(change, core, "all");
}

/** Carries the subtree sections of an edge's parent to the node that the edge leads to now. */
function imposeOnNew({ edge, from, to }: LinkChange, imposed: number): void {
  if (to === undefined) return;
  if (from !== undefined) {
    if (imposed > 0) quiesceSubtree(to, imposed, edge);
    return;
  }
  const ofParent = parentNode(edge)?.subtreeCount ?? 0;
  const missing = ofParent - edge.subtreeCount;
  edge.subtreeCount = ofParent;
  if (missing > 0) quiesceSubtree(to, missing, edge);
}

function tellParent({ edge, to }: LinkChange, core: GraphCore, what: "begins" | "all"): void {
  const missing = (to === undefined ? 0 : dueFrom(edge, core)) - edge.quiesceCount;
  if (missing > 0 || (what === "all" && missing < 0)) quiesceParent(edge, missing);
}

/** How many sections the node at the end of an edge imposes on its parent. */
export function dueFrom(edge: Edge, core: GraphCore): number {
  const ofAll = parentNode(edge) === undefined ? 0 : core.drainAllCount;
  return edge.node.quiesceCount - edge.subtreeCount - ofAll;
}

/** Nodes in an order in which every parent stands before its children, with everything below them. */
export function parentsFirst(roots: Iterable<BlockNode>): BlockNode[] {
  const order: BlockNode[] = [];
  const visited = new Set<BlockNode>();
  const visit = (node: BlockNode): void => {
    if (visited.has(node)) return;
    visited.add(node);
    for (const edge of node.children.values()) visit(edge.node);
    order.push(node);
  };
  for (const root of roots) visit(root);
  return order.reverse();
}
