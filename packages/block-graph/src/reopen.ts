import type { PreparedReopen } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { checkCycle, checkOpen } from "./attach.ts";
import { type BlockNode, checkLimits } from "./block-node.ts";
import { subtree } from "./chain.ts";
import { type GraphStep, runChange } from "./change.ts";
import type { Edge } from "./edge.ts";
import { type GraphCore, nodeNotFound } from "./graph-core.ts";
import type { NodeSpec } from "./node-spec.ts";
import { type ReopenEntry, reopenQueue } from "./reopen-queue.ts";
import { frozenLink, moveBacking } from "./surgery.ts";

/**
 * Gives nodes new full sets of options, all of them or none.
 *
 * @see spec/graph.md section 8
 */
export async function reopenNodes(
  core: GraphCore,
  list: readonly Readonly<Record<string, unknown>>[],
): Promise<void> {
  await runChange(core, [new ReopenStep(core, () => reopenQueue(core, list))]);
}

/** Changes one option and keeps the others. */
export async function setReadOnly(
  core: GraphCore,
  node: BlockNode,
  readOnly: boolean,
): Promise<void> {
  const queue = (): readonly ReopenEntry[] => {
    core.node(node.name, nodeNotFound);
    const spec: NodeSpec = {
      ...node.spec,
      generic: { ...node.spec.generic, readOnly },
      written: { ...node.spec.written, "read-only": readOnly },
    };
    return reopenQueue(core, [], [{ node, spec, children: new Map() }]);
  };
  await runChange(core, [new ReopenStep(core, queue)]);
}

/** The whole reopen as one step: parents are prepared first, and committed last. */
class ReopenStep implements GraphStep {
  readonly name = "reopen";
  readonly #core: GraphCore;
  readonly #queueNow: () => readonly ReopenEntry[];
  #queue: readonly ReopenEntry[] = [];
  readonly #prepared: { readonly node: BlockNode; readonly reopen: PreparedReopen }[] = [];
  readonly #undoExtensions: (() => void)[] = [];

  /** @param queueNow - works out what to do when the change has the graph for itself: others may come before it */
  constructor(core: GraphCore, queueNow: () => readonly ReopenEntry[]) {
    this.#core = core;
    this.#queueNow = queueNow;
  }

  get touches(): readonly BlockNode[] {
    this.#queue = this.#queueNow();
    const touched = new Set<BlockNode>();
    for (const { node, children } of this.#queue) {
      for (const below of subtree(node)) touched.add(below);
      for (const child of children.values()) if (child !== null) touched.add(child);
    }
    return [...touched];
  }

  async prepare(): Promise<void> {
    try {
      for (const { node } of this.#queue) await node.io.flush();
      for (const entry of this.#queue) await this.#prepareOne(entry);
    } catch (error) {
      this.abort();
      throw error;
    }
  }

  async #prepareOne({ node, spec }: ReopenEntry): Promise<void> {
    const { readOnly } = spec.generic;
    if (readOnly && node.io.copyOnReadCount > 0) {
      const message = `Can't set node '${node.name}' to r/o with copy-on-read enabled`;
      throw new BlockError("EINVAL", message, { node: node.name });
    }
    if (node.driver.prepareReopen === undefined) {
      const message = `Block format '${node.driverName}' used by node '${node.name}' does not support reopening files`;
      throw new BlockError("EINVAL", message, { node: node.name });
    }
    if (readOnly !== node.readOnly) {
      for (const extension of this.#core.extensions) {
        const undo = await extension.nodeReopening?.(node, readOnly);
        if (undo !== undefined) this.#undoExtensions.push(undo);
      }
    }
    const reopen = await node.driver.prepareReopen({ options: spec.driverOptions, readOnly });
    this.#prepared.push({ node, reopen });
    checkLimits(node, reopen.limits ?? node.driver.limits);
  }

  /** Permissions are computed for the options to come. */
  apply(): () => void {
    const saved = this.#queue.map(({ node }) => ({ node, options: node.options }));
    const undo = (): void => {
      for (const { node, options } of saved) {
        node.options = options;
        node.isBecomingReadOnly = false;
      }
    };
    try {
      for (const { node, spec } of this.#queue) {
        node.isBecomingReadOnly = spec.generic.readOnly && !node.readOnly;
        node.options = spec.generic;
      }
      for (const entry of this.#queue) moveChildren(entry);
    } catch (error) {
      undo();
      throw error;
    }
    return undo;
  }

  commit(): void {
    for (const { node, reopen } of this.#prepared.toReversed()) {
      reopen.commit();
      node.isBecomingReadOnly = false;
    }
    for (const { node, spec } of this.#queue) node.spec = spec;
    const faults: unknown[] = [];
    for (const { node } of this.#queue.toReversed()) {
      try {
        node.refresh();
      } catch (error) {
        // The driver has not told of these limits before. The other nodes have to learn theirs all the same.
        faults.push(error);
      }
    }
    if (faults.length > 0) throw faults[0];
  }

  abort(): void {
    for (const { reopen } of this.#prepared.toReversed()) reopen.abort();
    for (const undo of this.#undoExtensions.toReversed()) undo();
  }

  async clean(): Promise<void> {
    for (const { reopen } of this.#prepared.toReversed()) await reopen.clean?.();
    for (const { node, spec } of this.#queue) {
      if (node.spec !== spec) continue;
      for (const extension of this.#core.extensions) {
        await extension.nodeReopened?.(node, spec.generic.readOnly);
      }
    }
  }
}

function moveChildren({ node, children }: ReopenEntry): void {
  for (const [name, child] of children) {
    const edge = node.children.get(name);
    if (edge !== undefined) checkExplicit(node, edge);
    if (name === "backing") moveBacking(node, child ?? undefined);
    else if (edge !== undefined && child !== null) moveFile(node, edge, child);
  }
}

/** A filter that a job put in between is not the user's to replace. */
function checkExplicit(node: BlockNode, { name, node: child }: Edge): void {
  if (!child.isImplicit) return;
  const message = `Cannot replace implicit ${name} child of ${node.name}`;
  throw new BlockError("EPERM", message, { node: node.name, child: name });
}

function moveFile(node: BlockNode, edge: Edge, child: BlockNode): void {
  if (edge.isFrozen) throw frozenLink(node, edge);
  checkOpen(child);
  checkCycle(node, edge.name, child);
  node.graph.core.links.repoint(edge, child);
}
