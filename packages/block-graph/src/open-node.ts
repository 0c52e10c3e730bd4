import type { ImageReferencePolicy, RoleMask } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { MAX_LENGTH } from "@blocklayer/offsets";
import { BlockNode } from "./block-node.ts";
import { settleDriver, untilQuiet } from "./drain.ts";
import type { GraphExtension } from "./events.ts";
import type { Graph } from "./graph.ts";
import { type GraphCore, referenceNotFound } from "./graph-core.ts";
import { type ChildOpener, GraphNodeHost } from "./node-host.ts";
import { detachAll, forget, releaseOrphans } from "./node-life.ts";
import type { NodeSpec } from "./node-spec.ts";
import { parseTree } from "./option-tree.ts";
import { switchOver } from "./switch-over.ts";

/**
 * Opens a node and everything its options define, after all of them were parsed.
 *
 * @returns the node, owned by the caller
 */
export async function openNode(
  graph: Graph,
  options: unknown,
  policy: ImageReferencePolicy,
): Promise<BlockNode> {
  const opener = new TreeOpener(graph, policy);
  try {
    const spec = parseTree(graph.core, options, opener.claimed, { path: "" });
    return await opener.openSpec(spec, undefined);
  } finally {
    opener.releaseNames();
  }
}

/** Opens one tree of options. */
class TreeOpener implements ChildOpener {
  readonly policy: ImageReferencePolicy;
  /** Names that are taken and that no node has yet. */
  readonly claimed: Set<string> = new Set();
  readonly #graph: Graph;
  readonly #core: GraphCore;

  constructor(graph: Graph, policy: ImageReferencePolicy) {
    this.#graph = graph;
    this.#core = graph.core;
    this.policy = policy;
  }

  releaseNames(): void {
    for (const name of this.claimed) this.#core.releaseNodeName(name);
    this.claimed.clear();
  }

  parse(options: unknown, name: string, role: RoleMask, parent: BlockNode): NodeSpec | string {
    if (typeof options === "string") {
      this.#core.node(options, referenceNotFound);
      return options;
    }
    const spec = { generic: parent.options, autoReadOnly: parent.spec.autoReadOnly };
    return parseTree(this.#core, options, this.claimed, { path: name, parent: { spec, role } });
  }

  open(spec: NodeSpec, parent: BlockNode): Promise<BlockNode> {
    return this.openSpec(spec, parent);
  }

  async openSpec(spec: NodeSpec, inheritsFrom: BlockNode | undefined): Promise<BlockNode> {
    const core = this.#core;
    const node = new BlockNode(this.#graph, spec);
    this.claimed.delete(spec.name);
    node.inheritsFrom = inheritsFrom;
    core.shells.add(node);
    const told: GraphExtension[] = [];
    try {
      const host = new GraphNodeHost(node, this);
      const driver = await spec.definition.open(host, spec.driverOptions, core.env);
      node.driver = driver;
      checkChildren(node);
      checkSize(node);
      node.refresh();
      settleDriver(node);
      // Only now the driver can say which permissions it takes on its children.
      await switchOver(core, { apply: () => [node] });
      for (const extension of core.extensions) {
        await extension.nodeOpened?.(node);
        told.push(extension);
      }
    } catch (error) {
      await closeHalfOpen(node, told);
      throw error;
    }
    node.state = "open";
    // From the moment it is visible it has an owner, or somebody's coming and going could close it.
    node.isOwned = true;
    core.nodes.set(node.name, node);
    core.tell("nodeOpened", node);
    return node;
  }
}

/** Options that the driver ignored would otherwise look as if they had worked. */
function checkChildren(node: BlockNode): void {
  for (const [name, option] of node.spec.children) {
    if (option === null || node.children.has(name)) continue;
    const message = `Block format '${node.driverName}' does not support the option '${name}'`;
    throw new BlockError("EINVAL", message, { node: node.name, child: name });
  }
}

function checkSize(node: BlockNode): void {
  const { size } = node.driver;
  if (size <= MAX_LENGTH) return;
  throw new BlockError("EFBIG", "Could not refresh total sector count: File too large", {
    node: node.name,
    size,
    limit: MAX_LENGTH,
  });
}

/** Takes back an open that failed. What fails here is reported; the open's own error is what counts. */
async function closeHalfOpen(node: BlockNode, told: readonly GraphExtension[]): Promise<void> {
  const { core } = node.graph;
  const attempt = async (work: () => Promise<void> | void): Promise<void> => {
    try {
      await work();
    } catch (error) {
      core.tell("closeFailed", { node: node.name, error });
    }
  };
  if (node.hasDriver) {
    for (const extension of told.toReversed()) await attempt(() => extension.nodeClosing?.(node));
    await attempt(() => untilQuiet(core, () => [node]));
    await attempt(() => node.driver.close());
    node.state = "closed";
  }
  const children = await detachAll(node);
  forget(node);
  // Their failures are announced by the graph's events.
  await releaseOrphans(children);
}
