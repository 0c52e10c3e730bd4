import { ALL_PERMISSIONS } from "@blocklayer/driver";
import { assert } from "@blocklayer/errors";
import { modelPermissions, refusal } from "./graph-permission-model.ts";

/** What a node of the model is: a medium's disk, a window of one, something that shows its file, or an overlay. */
export type ModelKind = "disk" | "raw" | "filter" | "overlay";

/** A window of a medium, as guests see it: what they write is judged place by place. */
export interface Place {
  readonly medium: number;
  /** Number of the window on its medium. */
  readonly window: number;
}

/** Where a request ends up: the first place takes what is written; what it lacks is read from the next one. */
export type View = readonly Place[];

/** Where a chain leads that ends at a filter without a child. */
export const NOWHERE: Place = { medium: -1, window: -1 };

/** A node as it has to be. */
export interface ModelNode {
  readonly isRoot: false;
  readonly name: string;
  readonly kind: ModelKind;
  /** Of a disk: its medium. Of a raw node: the window it shows. */
  number: number;
  readOnly: boolean;
  /** Of a filter: whether it lets nobody else write below it. */
  readonly isJealous: boolean;
  /** Of an overlay: whether its file holds metadata too, so that nobody else may write there. */
  readonly isImage: boolean;
  /** What a reopen may change at will. */
  label: string;
  /** Whether guests are not plugged into it at will: its length changes, or it is for an overlay alone. */
  readonly isApart: boolean;
  /** The node that it was opened with, from which it has what nobody has said of it. */
  heirOf: ModelNode | undefined;
  /** Whether the user who opened it owns it still. */
  isOwned: boolean;
  uses: number;
  /** Changes under way that are about it. */
  changes: number;
  /** Reasons that close it to the command `drive-del`. */
  blocks: number;
}

/** A parent that is not a node. */
export interface ModelRoot {
  readonly isRoot: true;
  readonly name: string;
  /** Does not follow when its node is replaced. */
  readonly stays: boolean;
  perm: number;
  shared: number;
}

export type ModelParent = ModelNode | ModelRoot;

export interface ModelEdge {
  readonly parent: ModelParent;
  readonly name: string;
  readonly role: "root" | "file" | "backing" | "extra";
  node: ModelNode;
  frozen: number;
  perm: number;
  shared: number;
}

/** Why the rules do not allow a change. */
export class ModelRefusal extends Error {}

/** @throws ModelRefusal the rules do not allow it */
export function refuseIf(condition: boolean, why: string): void {
  if (condition) throw new ModelRefusal(why);
}

/**
 * The graph as it has to be: pointers and rules, without requests, time, or anything that can be half done.
 *
 * Written from the rules of surgery alone: it shares no code with the graph under test.
 *
 * @see spec/graph.md sections 2 to 4
 */
export class GraphModel {
  readonly nodes: Map<string, ModelNode> = new Map();
  edges: ModelEdge[] = [];
  /** `false` while the nodes are handed over. */
  isActive: boolean = true;
  readonly #placeOf: (medium: number, window: number) => Place;

  constructor(placeOf: (medium: number, window: number) => Place) {
    this.#placeOf = placeOf;
  }

  node(name: string): ModelNode {
    const node = this.nodes.get(name);
    assert(node !== undefined, () => `the model has a node '${name}'`);
    return node;
  }

  edgesTo(node: ModelNode): ModelEdge[] {
    return this.edges.filter((edge) => edge.node === node);
  }

  edgesOf(parent: ModelParent): ModelEdge[] {
    return this.edges.filter((edge) => edge.parent === parent);
  }

  child(parent: ModelParent, name: string): ModelEdge | undefined {
    return this.edges.find((edge) => edge.parent === parent && edge.name === name);
  }

  /** A node and everything below it. */
  subtree(top: ModelNode): Set<ModelNode> {
    const found = new Set([top]);
    for (const node of found) for (const edge of this.edgesOf(node)) found.add(edge.node);
    return found;
  }

  /** Everything above a node, and the node. */
  ancestors(node: ModelNode): Set<ModelParent> {
    const found = new Set<ModelParent>([node]);
    for (const one of found) {
      if (one.isRoot) continue;
      for (const { parent } of this.edgesTo(one)) found.add(parent);
    }
    return found;
  }

  /** What a parent of the node reads and writes. */
  view(node: ModelNode): View {
    const file = this.child(node, "file")?.node;
    if (file === undefined) return [NOWHERE];
    if (node.kind === "raw") {
      const disk = this.#diskBelow(file);
      return disk === undefined ? [NOWHERE] : [this.#placeOf(disk.number, node.number)];
    }
    const own = this.view(file);
    const backing = this.child(node, "backing")?.node;
    if (node.kind === "filter" || backing === undefined) return own;
    return [...own, ...this.view(backing)];
  }

  /**
   * Changes the model and gives everybody the permissions that follow, or leaves all as it was.
   *
   * @returns why not; `undefined` when it was done
   */
  attempt(change: () => void): string | undefined {
    const restore = this.#save();
    try {
      change();
      this.grant();
      return undefined;
    } catch (error) {
      restore();
      if (error instanceof ModelRefusal) return error.message;
      throw error;
    }
  }

  /** Whether {@link attempt} would refuse. Changes nothing. */
  foresee(change: () => void): string | undefined {
    const restore = this.#save();
    try {
      change();
      this.grant();
      return undefined;
    } catch (error) {
      if (error instanceof ModelRefusal) return error.message;
      throw error;
    } finally {
      restore();
    }
  }

  /** Computes all permissions, parents first. @throws ModelRefusal two parents do not tolerate each other */
  grant(): void {
    for (const edge of this.edges) if (edge.parent.isRoot) this.#grantRoot(edge, edge.parent);
    for (const node of this.#parentsFirst()) {
      const parents = this.edgesTo(node);
      const refused = refusal(node, parents, this.isActive);
      if (refused !== undefined) throw new ModelRefusal(refused);
      for (const edge of this.edgesOf(node)) {
        Object.assign(edge, modelPermissions(node, edge, parents, this.isActive));
      }
    }
  }

  /** Takes out the nodes that nobody holds any more, and what loses its last holder by that. */
  collect(): void {
    for (;;) {
      const orphan = [...this.nodes.values()].find((node) => !this.isHeld(node));
      if (orphan === undefined) return;
      this.nodes.delete(orphan.name);
      this.edges = this.edges.filter(({ parent }) => parent !== orphan);
      this.grant();
    }
  }

  isHeld(node: ModelNode): boolean {
    return node.changes > 0 || this.hasOwner(node);
  }

  /** Whether somebody holds the node for longer than a change. */
  hasOwner(node: ModelNode): boolean {
    return node.isOwned || node.uses > 0 || this.edges.some((edge) => edge.node === node);
  }

  /** One line for each node and each parent that is none, in an order of their names. */
  describe(): string {
    const lines = [...this.nodes.values()].map((node) => {
      const { name, readOnly, isOwned, uses, kind, label, number } = node;
      const shows = kind === "raw" ? number : label;
      const backs = this.edgesTo(node).some(({ role }) => role === "backing");
      const children = this.edgesOf(node).map(describeEdge).sort(byText);
      return `${name}: ${shows}, backing ${backs}, read-only ${readOnly}, owned ${isOwned}, uses ${uses}${children.join("")}`;
    });
    const roots = this.edges.filter(({ parent }) => parent.isRoot);
    return [...lines, ...roots.map((edge) => `${edge.parent.name}${describeEdge(edge)}`)]
      .sort(byText)
      .join("\n");
  }

  #diskBelow(node: ModelNode): ModelNode | undefined {
    if (node.kind === "disk") return node;
    const file = this.child(node, "file")?.node;
    return file === undefined || node.kind !== "filter" ? undefined : this.#diskBelow(file);
  }

  /** Who is inactive gives up what it may do, and minds nothing. */
  #grantRoot(edge: ModelEdge, root: ModelRoot): void {
    edge.perm = this.isActive ? root.perm : 0;
    edge.shared = this.isActive ? root.shared : ALL_PERMISSIONS;
  }

  #parentsFirst(): ModelNode[] {
    const order: ModelNode[] = [];
    const visited = new Set<ModelNode>();
    const visit = (node: ModelNode): void => {
      if (visited.has(node)) return;
      visited.add(node);
      for (const edge of this.edgesOf(node)) visit(edge.node);
      order.push(node);
    };
    for (const node of this.nodes.values()) visit(node);
    return order.reverse();
  }

  #save(): () => void {
    const nodes = [...this.nodes.values()].map((node) => ({ node, copy: { ...node } }));
    const edges = this.edges.map((edge) => ({ edge, copy: { ...edge } }));
    const roots = this.edges.flatMap(({ parent }) =>
      parent.isRoot ? [{ parent, copy: { ...parent } }] : [],
    );
    const { isActive } = this;
    return () => {
      this.isActive = isActive;
      this.nodes.clear();
      for (const { node, copy } of nodes) this.nodes.set(node.name, Object.assign(node, copy));
      for (const { parent, copy } of roots) Object.assign(parent, copy);
      this.edges = edges.map(({ edge, copy }) => Object.assign(edge, copy));
    };
  }
}

/** How both sides of a comparison write an edge. */
export function describeEdge(edge: {
  readonly name: string;
  readonly node: { readonly name: string };
  readonly perm: number;
  readonly shared: number;
}): string {
  return `\n  -${edge.name}-> ${edge.node.name} ${edge.perm}/${edge.shared}`;
}

export function byText(left: string, right: string): number {
  if (left === right) return 0;
  return left < right ? -1 : 1;
}
