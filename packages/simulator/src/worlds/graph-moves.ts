import type { Edge, GraphStep } from "@blocklayer/block-graph";
import { Role } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import type { Decisions } from "../decisions.ts";
import type { ModelEdge, ModelKind, ModelNode } from "./graph-model.ts";
import {
  modelAppend,
  modelAttach,
  modelDetach,
  modelDropFilter,
  modelReplaceChild,
  modelReplaceNode,
  modelSetBacking,
} from "./graph-model-steps.ts";
import type { GraphSite } from "./graph-site.ts";

/** Number of the windows that only overlays write to. */
export const OVERLAY_WINDOW = 2;

/** A step of surgery, on both sides. */
export interface Move {
  readonly name: string;
  /** The nodes that it names; they are drained for it. */
  readonly nodes: readonly ModelNode[];
  /** The link that it names. The node at its end is drained, whichever that is by then. */
  readonly edge?: ModelEdge;
  readonly change: () => void;
  readonly step: () => GraphStep;
}

const KINDS = [
  "replace",
  "plug",
  "backing",
  "drop",
  "extra",
  "detach",
  "append",
  "insert",
] as const;
const WEIGHTS = [4, 4, 2, 2, 1, 1, 2, 3];

/** Draws steps of surgery for a graph as it is now. */
export class Moves {
  readonly #site: GraphSite;
  #extraCount = 0;

  constructor(site: GraphSite) {
    this.#site = site;
  }

  get #decisions(): Decisions {
    return this.#site.simulation.decisions;
  }

  /** Returns a step, which the rules may forbid; `undefined` when there is nothing that it could be done to. */
  draw(): Move | undefined {
    switch (KINDS[this.#decisions.weighted("step", WEIGHTS, KINDS)]) {
      case "replace":
        return this.#replace();
      case "plug":
        return this.#plug();
      case "backing":
        return this.#backing();
      case "drop":
        return this.#drop();
      case "extra":
        return this.#extra();
      case "detach":
        return this.#detach();
      case "append":
        return this.#append();
      default:
        return this.#insert();
    }
  }

  /** The parents of a node get a filter that stands on it. */
  insert(filter: ModelNode, at: ModelNode): Move {
    const { graph, model } = this.#site;
    return {
      name: `insert ${filter.name} above ${at.name}`,
      nodes: [at, filter],
      change: () => modelReplaceNode(model, at, filter),
      step: () => graph.replaceNode(this.#real(at), this.#real(filter)),
    };
  }

  append(overlay: ModelNode, at: ModelNode): Move {
    const { graph, model } = this.#site;
    return {
      name: `append ${overlay.name} to ${at.name}`,
      nodes: [overlay, at],
      change: () => modelAppend(model, overlay, at),
      step: () => graph.append(this.#real(overlay), this.#real(at)),
    };
  }

  /** A node that guests may look at: no disk, and not the file of an overlay. */
  pickShown(): ModelNode | undefined {
    return this.#pick("shown node", isShown);
  }

  /** A node above the disk whose length changes. */
  pickApart(): ModelNode | undefined {
    return this.#pick("resizable node", ({ isApart, kind }) => isApart && kind !== "disk");
  }

  /** A node that only its parents hold, if there is one, else any that is shown. */
  pickUnowned(): ModelNode | undefined {
    return this.#pick("unowned node", (node) => !node.isOwned && isShown(node)) ?? this.pickShown();
  }

  /** A disk with windows. */
  pickDisk(): ModelNode | undefined {
    return this.#pick("disk", ({ kind, isApart }) => kind === "disk" && !isApart);
  }

  pickKind(kind: ModelKind): ModelNode | undefined {
    return this.#pick(kind, (node) => node.kind === kind);
  }

  /** A node by chance, of those that exist now. */
  #pick(tag: string, isWanted: (node: ModelNode) => boolean): ModelNode | undefined {
    const nodes = [...this.#site.model.nodes.values()].filter(isWanted);
    return nodes.length === 0 ? undefined : nodes[this.#decisions.choose(tag, nodes.length)];
  }

  #insert(): Move | undefined {
    const filter = this.pickKind("filter");
    const at = filter === undefined ? undefined : this.#site.model.child(filter, "file")?.node;
    return filter === undefined || at === undefined ? undefined : this.insert(filter, at);
  }

  #append(): Move | undefined {
    const overlay = this.pickKind("overlay");
    const at = this.pickShown();
    return overlay === undefined || at === undefined ? undefined : this.append(overlay, at);
  }

  #replace(): Move | undefined {
    const { graph, model } = this.#site;
    const [from, to] = [this.pickShown(), this.pickShown()];
    if (from === undefined || to === undefined) return undefined;
    const skip = !this.#decisions.chance("without skipping", 1, 4);
    return {
      name: `replace ${from.name} by ${to.name}${skip ? "" : " without skipping"}`,
      nodes: [from, to],
      change: () => modelReplaceNode(model, from, to, skip),
      step: () => graph.replaceNode(this.#real(from), this.#real(to), { skip }),
    };
  }

  /** One link leads to another node: that of a backend, or one between nodes. */
  #plug(): Move | undefined {
    const { graph, model } = this.#site;
    const isRoot = !this.#decisions.chance("link between nodes", 1, 4);
    const edges = model.edges.filter(
      ({ parent, node }) => parent.isRoot === isRoot && isShown(node),
    );
    if (edges.length === 0) return undefined;
    const edge = edges[this.#decisions.choose("link", edges.length)];
    const to = this.pickShown();
    if (edge === undefined || to === undefined) return undefined;
    return {
      name: `plug ${edge.parent.name} -${edge.name}-> into ${to.name}`,
      nodes: [to],
      edge,
      change: () => modelReplaceChild(model, edge, to),
      step: () => graph.replaceChild(this.#realEdge(edge), this.#real(to)),
    };
  }

  #backing(): Move | undefined {
    const { graph, model } = this.#site;
    const overlay = this.pickKind("overlay");
    if (overlay === undefined) return undefined;
    const backing = this.#decisions.chance("no backing", 1, 4) ? undefined : this.pickShown();
    return {
      name: `set the backing of ${overlay.name} to ${backing?.name ?? "none"}`,
      nodes: backing === undefined ? [overlay] : [overlay, backing],
      change: () => modelSetBacking(model, overlay, backing),
      step: () =>
        graph.setBacking(
          this.#real(overlay),
          backing === undefined ? undefined : this.#real(backing),
        ),
    };
  }

  #drop(): Move | undefined {
    const { graph, model } = this.#site;
    const filter = this.pickKind("filter");
    if (filter === undefined) return undefined;
    return {
      name: `drop ${filter.name}`,
      nodes: [filter],
      change: () => modelDropFilter(model, filter),
      step: () => graph.dropFilter(this.#real(filter)),
    };
  }

  #extra(): Move | undefined {
    const { graph, model } = this.#site;
    const [filter, child] = [this.pickKind("filter"), this.pickShown()];
    if (filter === undefined || child === undefined) return undefined;
    this.#extraCount += 1;
    const name = `extra-${this.#extraCount}`;
    return {
      name: `attach ${child.name} to ${filter.name} as ${name}`,
      nodes: [filter, child],
      change: () => void modelAttach(model, filter, name, "extra", child),
      step: () => graph.attachChild(this.#real(filter), name, Role.data, this.#real(child)),
    };
  }

  #detach(): Move | undefined {
    const { graph, model } = this.#site;
    const edges = model.edges.filter(({ role }) => role === "extra");
    if (edges.length === 0) return undefined;
    const edge = edges[this.#decisions.choose("extra child", edges.length)];
    if (edge === undefined) return undefined;
    return {
      name: `detach ${edge.name} from ${edge.parent.name}`,
      nodes: [],
      edge,
      change: () => modelDetach(model, edge),
      step: () => graph.detachChild(this.#realEdge(edge)),
    };
  }

  #real(node: ModelNode): ReturnType<GraphSite["node"]> {
    return this.#site.node(node.name);
  }

  #realEdge({ parent, name }: ModelEdge): Edge {
    const edge = parent.isRoot
      ? this.#site.edgeOf(parent)
      : this.#site.node(parent.name).children.get(name);
    if (edge !== undefined) return edge;
    throw new BlockError("ENOENT", `${parent.name} has no link ${name} any more`);
  }
}

function isShown({ kind, number, isApart }: ModelNode): boolean {
  return kind !== "disk" && !isApart && !(kind === "raw" && number === OVERLAY_WINDOW);
}

/** The nodes that a change drains, as things are now. */
export function drainedFor(moves: readonly Move[]): Set<ModelNode> {
  return new Set(
    moves.flatMap(({ nodes, edge }) => (edge === undefined ? nodes : [...nodes, edge.node])),
  );
}
