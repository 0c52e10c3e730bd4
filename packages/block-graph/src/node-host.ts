import type {
  BlockChild,
  ChildOptionState,
  FreezeHold,
  GenericNodeOptions,
  ImageReferencePolicy,
  NodeHost,
  RoleMask,
} from "@blocklayer/driver";
import { assert, BlockError } from "@blocklayer/errors";
import { checkChild, linkEdge } from "./attach.ts";
import type { BlockNode } from "./block-node.ts";
import { runChange } from "./change.ts";
import { Edge } from "./edge.ts";
import { freezeChain } from "./freeze.ts";
import { deviceNotFound, referenceNotFound } from "./graph-core.ts";
import type { NodeSpec } from "./node-spec.ts";
import { attachChild, detachChild } from "./surgery.ts";
import { switchOver } from "./switch-over.ts";

/** How a host opens what is not open yet; given by the opener, which knows the tree of options. */
export interface ChildOpener {
  readonly policy: ImageReferencePolicy;
  /** Opens a child defined inline; the caller owns it. */
  open(spec: NodeSpec, parent: BlockNode): Promise<BlockNode>;
  /** Parses options that a driver gives for a child. */
  parse(options: unknown, name: string, role: RoleMask, parent: BlockNode): NodeSpec | string;
}

/** What a driver may ask of the graph: the world above it, seen from one node. */
export class GraphNodeHost implements NodeHost {
  readonly #node: BlockNode;
  readonly #opener: ChildOpener;

  constructor(node: BlockNode, opener: ChildOpener) {
    this.#node = node;
    this.#opener = opener;
  }

  get nodeName(): string {
    return this.#node.name;
  }

  get options(): GenericNodeOptions {
    return this.#node.options;
  }

  get autoReadOnly(): boolean {
    return this.#node.spec.autoReadOnly;
  }

  get policy(): ImageReferencePolicy {
    return this.#opener.policy;
  }

  get children(): ReadonlyMap<string, BlockChild> {
    return this.#node.children;
  }

  childOption(name: string): ChildOptionState {
    const option = this.#node.spec.children.get(name);
    if (option === undefined) return "absent";
    return option === null ? "null" : "given";
  }

  async openChild(name: string, role: RoleMask, options?: unknown): Promise<BlockChild> {
    const node = this.#node;
    const option =
      options === undefined
        ? node.spec.children.get(name)
        : this.#opener.parse(options, name, role, node);
    if (option === undefined || option === null) {
      const message = `A block device must be specified for "${name}"`;
      throw new BlockError("EINVAL", message, { node: node.name, child: name });
    }
    const { core } = node.graph;
    const child =
      typeof option === "string"
        ? core.node(option, referenceNotFound)
        : await this.#opener.open(option, node);
    // Held, so that the child is not closed by somebody else's coming and going before it has its parent.
    const held = child.use(`being attached to '${node.name}'`);
    // A child defined inline belongs to its parents alone.
    if (typeof option !== "string") child.isOwned = false;
    try {
      checkChild(node, name, role, child);
      const edge = new Edge(node, name, role, child, { perm: 0, shared: 0 });
      await linkEdge(core, edge);
      return edge;
    } finally {
      await held.release();
    }
  }

  async attachChild(name: string, role: RoleMask, nodeName: string): Promise<BlockChild> {
    const { core } = this.#node.graph;
    const child = core.node(nodeName, deviceNotFound);
    await runChange(core, [attachChild(this.#node, name, role, child)]);
    return this.#child(name);
  }

  detachChild(name: string): Promise<void> {
    return runChange(this.#node.graph.core, [detachChild(this.#child(name))]);
  }

  freezeChain(base?: string): FreezeHold {
    const { core } = this.#node.graph;
    return freezeChain(
      this.#node,
      base === undefined ? undefined : core.node(base, deviceNotFound),
    );
  }

  async refreshPermissions(): Promise<void> {
    await switchOver(this.#node.graph.core, { apply: () => [this.#node] });
  }

  limitsChanged(): void {
    this.#node.refresh();
  }

  resized(): void {
    this.#node.refresh();
  }

  becomeReadOnly(reason: string): void {
    const node = this.#node;
    assert(node.state === "opening", "a node becomes read-only while it opens");
    assert(this.autoReadOnly || node.readOnly, "only a node that may be read-only becomes it");
    if (node.readOnly) return;
    node.options = { ...node.options, readOnly: true };
    node.graph.core.log(`node '${node.name}' is read-only: ${reason}`);
  }

  holdInFlight(): Disposable {
    return this.#node.io.hold();
  }

  contentReplaced(offset: number, length: number): Promise<void> {
    return this.#node.io.contentReplaced(offset, length);
  }

  reportCorruption(
    message: string,
    detail: { readonly fatal: boolean; readonly offset?: number; readonly length?: number },
  ): void {
    const { core } = this.#node.graph;
    const node = this.#node.name;
    core.log(`node '${node}' is damaged: ${message}`);
    core.tell("corrupted", { node, message, ...detail });
  }

  warn(message: string): void {
    this.#node.graph.core.log(`node '${this.#node.name}': ${message}`);
  }

  #child(name: string): Edge {
    const edge = this.#node.children.get(name);
    if (edge !== undefined) return edge;
    const message = `Node '${this.#node.name}' has no child '${name}'`;
    throw new BlockError("ENOENT", message, { node: this.#node.name, child: name });
  }
}
