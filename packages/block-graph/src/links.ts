import { assert } from "@blocklayer/errors";
import type { BlockNode } from "./block-node.ts";
import type { Edge } from "./edge.ts";

/** One edge that leads elsewhere than before; `undefined` stands for nowhere. */
export interface LinkChange {
  readonly edge: Edge;
  readonly from: BlockNode | undefined;
  readonly to: BlockNode | undefined;
}

interface SavedLinks {
  readonly parents: readonly Edge[];
  readonly children: readonly (readonly [string, Edge])[];
}

/**
 * Changes where edges lead, and writes down what it changed, so that all of it can be taken back in the same
 * turn. Nothing else in the package changes a node's parents, its children, or where an edge leads.
 *
 * A change of links is only pointers: parents are told, and drained sections adjusted, when the whole change
 * stands (`settleLinks`).
 */
export class Links {
  readonly #changes: LinkChange[] = [];
  readonly #saved = new Map<BlockNode, SavedLinks>();

  /** Makes an edge that leads nowhere lead to its node, and enters it into its parent's children. */
  link(edge: Edge): void {
    assert(!edge.isAttached, "an edge is linked once");
    this.#save(edge.node);
    edge.node.parents.add(edge);
    const parent = parentNode(edge);
    if (parent !== undefined) {
      this.#save(parent);
      assert(!parent.children.has(edge.name), "a node has one child of a name");
      parent.children.set(edge.name, edge);
    }
    edge.isAttached = true;
    this.#changes.push({ edge, from: undefined, to: edge.node });
  }

  /** Makes an edge lead nowhere. It still names the node it led to. */
  unlink(edge: Edge): void {
    assert(edge.isAttached && !edge.isFrozen, "a linked edge that is not frozen is unlinked");
    this.#save(edge.node);
    edge.node.parents.delete(edge);
    const parent = parentNode(edge);
    if (parent !== undefined) {
      this.#save(parent);
      parent.children.delete(edge.name);
    }
    edge.isAttached = false;
    this.#changes.push({ edge, from: edge.node, to: undefined });
  }

  /** Makes an edge lead to another node. */
  repoint(edge: Edge, to: BlockNode): void {
    assert(edge.isAttached && !edge.isFrozen, "a linked edge that is not frozen is re-pointed");
    const from = edge.node;
    if (from === to) return;
    this.#save(from);
    this.#save(to);
    from.parents.delete(edge);
    to.parents.add(edge);
    edge.node = to;
    this.#changes.push({ edge, from, to });
  }

  /** The nodes whose permissions depend on the changes so far. */
  affectedNodes(): BlockNode[] {
    return [...this.#saved.keys()];
  }

  /** Takes every change back, in reverse, down to the order of parents. */
  rollback(): void {
    for (const { edge, from, to } of this.#changes.toReversed()) {
      edge.isAttached = from !== undefined;
      if (from !== undefined && to !== undefined) edge.node = from;
    }
    for (const [node, { parents, children }] of this.#saved) {
      node.parents.clear();
      for (const edge of parents) node.parents.add(edge);
      node.children.clear();
      for (const [name, edge] of children) node.children.set(name, edge);
    }
    this.#clear();
  }

  /** Lets the changes stand and returns them, one for each edge, those that lead where they led left out. */
  take(): LinkChange[] {
    const byEdge = new Map<Edge, LinkChange>();
    for (const change of this.#changes) {
      const from = byEdge.has(change.edge) ? byEdge.get(change.edge)?.from : change.from;
      byEdge.set(change.edge, { edge: change.edge, from, to: change.to });
    }
    this.#clear();
    return [...byEdge.values()].filter(({ from, to }) => from !== to);
  }

  #save(node: BlockNode): void {
    if (this.#saved.has(node)) return;
    this.#saved.set(node, { parents: [...node.parents], children: [...node.children] });
  }

  #clear(): void {
    this.#changes.length = 0;
    this.#saved.clear();
  }
}

/** The parent of an edge if it is a node. */
export function parentNode(edge: Edge): BlockNode | undefined {
  return edge.parent.kind === "node" ? (edge.parent as BlockNode) : undefined;
}
