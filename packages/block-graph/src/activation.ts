import { ALL_PERMISSIONS } from "@blocklayer/driver";
import type { BlockNode } from "./block-node.ts";
import { drainAll, parentsFirst } from "./drain.ts";
import type { Edge } from "./edge.ts";
import type { GraphCore } from "./graph-core.ts";
import { planPermissions } from "./permission-update.ts";
import { switchOver } from "./switch-over.ts";

/*
 * Handing images over to another process, and taking them back. An inactive node stays open and is not written.
 * spec/graph.md section 9.
 */

/**
 * Lets every node write back what it has and stop writing. Backends give their permissions up for the time;
 * other parents have to have done so.
 *
 * @throws BlockError `EPERM` somebody still needs to write; everything is active then, as before
 */
export function inactivateNodes(core: GraphCore): Promise<void> {
  return alone(core, async () => {
    const nodes = parentsFirst(core.nodes.values()).filter(({ active }) => active);
    const change = flip(nodes, false);
    tryOut(change);
    const done: BlockNode[] = [];
    const asked = new Set<Edge>();
    try {
      for (const node of nodes) {
        if (!isOpen(node)) continue;
        done.push(node);
        await tellInactivating(core, node);
        await node.io.flush();
        await node.driver.inactivate?.();
      }
      await switchOver(core, {
        ...change,
        apply: () => {
          askParents(nodes, asked);
          return change.apply();
        },
      });
    } catch (error) {
      await takeBackAll(core, done);
      for (const edge of asked) edge.parent.activate?.(edge);
      throw error;
    }
  });
}

/**
 * Takes every node back, children first, and lets its driver forget what it knew.
 *
 * @throws BlockError `EPERM` permissions conflict; whatever a driver reports. The nodes are inactive then
 */
export function activateNodes(core: GraphCore): Promise<void> {
  return alone(core, async () => {
    const nodes = parentsFirst(core.nodes.values()).filter(({ active }) => !active);
    await switchOver(core, flip(nodes, true));
    const done: BlockNode[] = [];
    try {
      for (const node of nodes.toReversed()) {
        if (!isOpen(node)) continue;
        await node.driver.activate?.();
        done.push(node);
        node.refresh();
        for (const extension of core.extensions) await extension.nodeActivated?.(node, true);
      }
    } catch (error) {
      await giveUpAll(core, done);
      await switchOver(core, { ...flip(nodes, false), isLoosening: true });
      throw error;
    }
    for (const edge of rootEdges(nodes)) edge.parent.activate?.(edge);
  });
}

async function alone(core: GraphCore, work: () => Promise<void>): Promise<void> {
  const waiting = core.surgery.lock();
  if (waiting !== undefined) await waiting;
  try {
    const drained = await drainAll(core);
    try {
      await work();
    } finally {
      drained.end();
    }
  } finally {
    core.surgery.unlock();
  }
}

/** A backend or a job may be gone, and with it the node, while another node writes back. */
function isOpen(node: BlockNode): boolean {
  return node.state === "open";
}

/** Asks each parent once, those included that came while nodes wrote back. */
function askParents(nodes: readonly BlockNode[], asked: Set<Edge>): void {
  for (const edge of rootEdges(nodes)) {
    if (asked.has(edge)) continue;
    edge.parent.inactivate?.(edge);
    asked.add(edge);
  }
}

async function tellInactivating(core: GraphCore, node: BlockNode): Promise<void> {
  for (const extension of core.extensions) {
    try {
      await extension.nodeInactivating?.(node);
    } catch (error) {
      core.log(`${extension.name} of node '${node.name}' at its inactivation: ${String(error)}`);
    }
  }
}

/** So that all of them look at their images anew the next time. What fails here is logged. */
async function giveUpAll(core: GraphCore, nodes: readonly BlockNode[]): Promise<void> {
  for (const node of nodes.toReversed()) {
    if (!isOpen(node)) continue;
    await tellInactivating(core, node);
    try {
      await node.driver.inactivate?.();
    } catch (error) {
      core.log(`node '${node.name}' could not be given up again: ${String(error)}`);
    }
  }
}

/** What fails here is logged: why the nodes are not handed over is what counts. */
async function takeBackAll(core: GraphCore, nodes: readonly BlockNode[]): Promise<void> {
  for (const node of nodes.toReversed()) {
    try {
      if (!isOpen(node)) continue;
      await node.driver.activate?.();
      for (const extension of core.extensions) await extension.nodeActivated?.(node, false);
    } catch (error) {
      core.log(`node '${node.name}' could not be activated again: ${String(error)}`);
    }
  }
}

interface Flip {
  apply(): readonly BlockNode[];
  undo(): void;
}

function flip(nodes: readonly BlockNode[], active: boolean): Flip {
  let edges: readonly Edge[] = [];
  return {
    apply: () => {
      edges = rootEdges(nodes);
      for (const node of nodes) node.active = active;
      for (const edge of edges)
        if (active) takeBack(edge);
        else giveUp(edge);
      return nodes;
    },
    undo: () => {
      for (const node of nodes) node.active = !active;
      for (const edge of edges)
        if (active) giveUp(edge);
        else takeBack(edge);
    },
  };
}

/** Says beforehand whether permissions would allow it, so that nothing is written back in vain. */
function tryOut(change: Flip): void {
  try {
    planPermissions(change.apply()).undo();
  } finally {
    change.undo();
  }
}

function rootEdges(nodes: readonly BlockNode[]): Edge[] {
  return nodes.flatMap((node) => [...node.parents].filter(({ parent }) => parent.kind !== "node"));
}

function giveUp(edge: Edge): void {
  if (edge.parent.kind !== "backend" && edge.parent.inactivate === undefined) return;
  edge.givenUp = { perm: edge.perm, shared: edge.shared };
  Object.assign(edge, { perm: 0, shared: ALL_PERMISSIONS });
}

function takeBack(edge: Edge): void {
  if (edge.givenUp === undefined) return;
  Object.assign(edge, edge.givenUp);
  edge.givenUp = undefined;
}
