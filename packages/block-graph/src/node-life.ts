import { BlockError } from "@blocklayer/errors";
import type { BlockNode } from "./block-node.ts";
import { beginDrain, parentsFirst, untilQuiet } from "./drain.ts";
import { type GraphCore, nodeNotFound } from "./graph-core.ts";
import { switchOver } from "./switch-over.ts";

/**
 * Closes those of the nodes that nobody owns any more, and whatever loses its last owner by that.
 *
 * A node has as owners: the user who opened it (until `remove`), the edges of its parents, uses by name, and
 * changes under way. Whoever takes the last one away closes it, and nobody else does.
 *
 * @returns what went wrong; the nodes are closed nevertheless
 */
export async function releaseOrphans(nodes: Iterable<BlockNode>): Promise<unknown[]> {
  const faults: unknown[] = [];
  for (const node of new Set(nodes)) {
    if (isOrphan(node)) faults.push(...(await closeNode(node)));
  }
  return faults;
}

function isOrphan(node: BlockNode): boolean {
  return (
    node.state === "open" &&
    !node.isOwned &&
    node.parents.size === 0 &&
    node.uses.size === 0 &&
    node.changeCount === 0
  );
}

/** Drains, tells the extensions, flushes, closes the driver, and lets go of the children. Never throws. */
async function closeNode(node: BlockNode): Promise<unknown[]> {
  const { core } = node.graph;
  const faults: unknown[] = [];
  const attempt = async (work: () => Promise<void> | void): Promise<void> => {
    try {
      await work();
    } catch (error) {
      faults.push(error);
      core.tell("closeFailed", { node: node.name, error });
    }
  };
  // From here on nobody finds it, so nobody can become its owner again.
  node.state = "closing";
  core.nodes.delete(node.name);
  const drained = beginDrain(node);
  await attempt(() => untilQuiet(core, () => [node]));
  for (const extension of core.extensions) await attempt(() => extension.nodeClosing?.(node));
  // A filter that was dropped shows nothing any more: what passed through it is its former child's to flush.
  const isDropped = node.definition.isFilter && node.filterChild === undefined;
  if (!isDropped) await attempt(() => node.io.flush());
  await attempt(() => untilQuiet(core, () => [node]));
  await attempt(() => node.driver.close());
  // Nobody may tell the driver anything from here on.
  node.state = "closed";
  const children = await detachAll(node);
  forget(node);
  drained.end();
  core.tell("nodeClosed", node);
  faults.push(...(await releaseOrphans(children)));
  return faults;
}

/** Unlinks all children of a node. @returns those that lost a parent */
export function detachAll(node: BlockNode): Promise<BlockNode[]> {
  const { core } = node.graph;
  const edges = [...node.children.values()].filter((edge) => edge.isAttached);
  if (edges.length === 0) return Promise.resolve([]);
  return switchOver(core, {
    apply: () => {
      for (const edge of edges) {
        edge.frozenCount = 0;
        core.links.unlink(edge);
      }
      return [];
    },
    isLoosening: true,
  });
}

/** Takes a node out of the graph's books. */
export function forget(node: BlockNode): void {
  const { core } = node.graph;
  node.state = "closed";
  core.shells.delete(node);
  core.nodes.delete(node.name);
  core.releaseNodeName(node.name);
}

/**
 * Gives up the ownership that `open` gave, and closes the node.
 *
 * @throws BlockError `ENOENT`; `EBUSY` somebody uses the node; whatever closing it reported, when it is gone
 */
export async function removeNode(core: GraphCore, name: string): Promise<void> {
  const waiting = core.surgery.lock();
  if (waiting !== undefined) await waiting;
  let node: BlockNode;
  try {
    node = core.node(name, nodeNotFound);
    checkRemovable(node);
    node.isOwned = false;
  } finally {
    core.surgery.unlock();
  }
  const faults = await releaseOrphans([node]);
  if (faults.length === 1) throw faults[0];
  if (faults.length > 1)
    throw new AggregateError(faults, `closing '${name}': ${faults.join("; ")}`);
}

function checkRemovable(node: BlockNode): void {
  const { name } = node;
  const busy = (message: string): BlockError => new BlockError("EBUSY", message, { node: name });
  for (const edge of node.parents) {
    if (edge.parent.kind === "backend") throw busy(`Node ${name} is in use`);
  }
  node.operations.check("drive-del");
  if (!node.isOwned) throw busy(`Node ${name} is not owned by the monitor`);
  if (node.parents.size > 0 || node.uses.size > 0) throw busy(`Block device ${name} is in use`);
}

/**
 * Closes every node that its opener owns, parents first.
 *
 * @throws BlockError `EBUSY` a parent that is not a node, or a use by name, is left; nothing was closed
 */
export async function closeAll(core: GraphCore): Promise<void> {
  const waiting = core.surgery.lock();
  if (waiting !== undefined) await waiting;
  const nodes = parentsFirst(core.nodes.values());
  try {
    for (const node of nodes) checkUnused(node);
    for (const node of nodes) node.isOwned = false;
  } finally {
    core.surgery.unlock();
  }
  const faults = await releaseOrphans(nodes);
  if (faults.length === 1) throw faults[0];
  if (faults.length > 1) throw new AggregateError(faults, `closing: ${faults.join("; ")}`);
}

function checkUnused(node: BlockNode): void {
  const edge = [...node.parents].find(({ parent }) => parent.kind !== "node");
  const [use] = node.uses;
  const user = edge?.parent.describe() ?? use?.name;
  if (user === undefined) return;
  throw new BlockError("EBUSY", `Node '${node.name}' is in use by ${user}`, { node: node.name });
}
