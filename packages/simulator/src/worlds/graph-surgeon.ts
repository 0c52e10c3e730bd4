import type { GraphStep } from "@blocklayer/block-graph";
import type { TransactionStep } from "@blocklayer/jobs";
import type { DrainedSection, Drains } from "./graph-drains.ts";
import { type GraphModel, type ModelNode, refuseIf } from "./graph-model.ts";
import { modelAttach } from "./graph-model-steps.ts";
import { drainedFor, type Move, type Moves, OVERLAY_WINDOW } from "./graph-moves.ts";
import { injected } from "./graph-probe.ts";
import type { GraphSite, Operation } from "./graph-site.ts";

/** What a raw node shows, as options. */
export interface WindowOptions {
  readonly offset: number;
  readonly size: number;
}

export interface SurgeonParts {
  readonly site: GraphSite;
  readonly moves: Moves;
  readonly drains: Drains;
  readonly windowOf: (window: number) => WindowOptions;
  /** Numbers of media that no overlay has been opened on yet. */
  readonly freeMedia: number[];
}

/** Opens nodes, moves links, closes nodes, each as one operation or several as one, some of them with a step that fails. */
export class Surgeon {
  readonly #site: GraphSite;
  readonly #moves: Moves;
  readonly #drains: Drains;
  readonly #windowOf: (window: number) => WindowOptions;
  readonly #freeMedia: number[];
  #nodeCount = 0;

  constructor({ site, moves, drains, windowOf, freeMedia }: SurgeonParts) {
    this.#site = site;
    this.#moves = moves;
    this.#drains = drains;
    this.#windowOf = windowOf;
    this.#freeMedia = freeMedia;
  }

  /** Carries out one to three steps as one change. One more step may fail, at any position. */
  async change(): Promise<void> {
    const { decisions } = this.#site.simulation;
    const moves: Move[] = [];
    for (let count = 1 + decisions.choose("more steps", 3); count > 0; count -= 1) {
      const move = this.#moves.draw();
      if (move !== undefined) moves.push(move);
    }
    await this.#perform(moves);
  }

  /** Opens a filter above a node and gives it the node's parents. */
  async insertFilter(): Promise<void> {
    const { simulation } = this.#site;
    const isApart = simulation.decisions.chance("on the disk that is resized", 1, 5);
    const at = isApart ? this.#moves.pickApart() : this.#moves.pickShown();
    if (at === undefined) return;
    if (simulation.decisions.chance("inserts in one go", 1, 3)) {
      await this.#insertNode(at);
      return;
    }
    const filter = await this.#openFilter(at);
    if (filter === undefined) return;
    if (await this.#perform([this.#moves.insert(filter, at)])) {
      simulation.sometimes("a filter was inserted");
    }
  }

  /** Opens an overlay and appends it to a node. */
  async appendOverlay(): Promise<void> {
    const overlay = await this.#openOverlay();
    const at = this.#moves.pickShown();
    if (overlay === undefined || at === undefined || at === overlay) return;
    if (await this.#perform([this.#moves.append(overlay, at)])) {
      this.#site.simulation.sometimes("an overlay was appended");
    }
  }

  /** Gives up a node, which closes if nobody else holds it. */
  async remove(): Promise<void> {
    const { graph, model, simulation } = this.#site;
    const { decisions } = simulation;
    const nodes = [...model.nodes.values()].filter(({ kind }) => kind !== "disk");
    const node = nodes[decisions.choose("node to remove", Math.max(1, nodes.length))];
    if (node === undefined) return;
    const { name } = node;
    await this.#site.perform({
      name: `remove ${name}`,
      isAlone: true,
      change: () => {
        refuseIf(!isRemovable(this.#site, node), `${name} is in use`);
        node.isOwned = false;
      },
      run: async (commit) => {
        const wasOpen = this.#site.isOpen(name);
        try {
          await graph.remove(name);
        } finally {
          // Whatever closing it reports: it is gone then.
          if (wasOpen && !this.#site.isOpen(name)) commit();
        }
      },
    });
  }

  #perform(moves: readonly Move[]): Promise<boolean> {
    const { graph, model, simulation } = this.#site;
    const { decisions } = simulation;
    const isDoomed = decisions.chance("a step fails", 1, 4);
    const at = decisions.choose("position of the witness", moves.length + 1);
    const failsAt = isDoomed ? decisions.choose("position of the failure", moves.length + 1) : -1;
    const names = moves.map(({ name }) => name).join(", then ");
    return this.#site.perform({
      name: isDoomed ? `${names}, failing` : names,
      isDoomed,
      change: () => {
        for (const { nodes, change } of moves) {
          for (const node of nodes) refuseIf(model.nodes.get(node.name) !== node, "it is gone");
          change();
        }
      },
      run: async (commit) => {
        const claim = new ChangeClaim(model, moves);
        const steps: TransactionStep[] = moves.map(({ step }) => step());
        const done = (): void => {
          commit();
          claim.release();
        };
        steps.splice(at, 0, this.#witness(moves, claim, done));
        if (isDoomed) steps.splice(failsAt, 0, this.#failure());
        try {
          await graph.change(steps);
        } finally {
          claim.release();
        }
      },
    });
  }

  /** A step that looks at the change from inside: everything is drained until it commits, in the turn of all. */
  #witness(moves: readonly Move[], claim: ChangeClaim, commit: () => void): GraphStep {
    const { simulation } = this.#site;
    const sections: DrainedSection[] = [];
    const release = (): void => {
      for (const section of sections.splice(0)) this.#drains.delete(section);
    };
    return {
      name: "witness",
      get touches() {
        claim.take();
        return [];
      },
      prepare: async () => {
        for (const node of drainedFor(moves)) {
          const section = { kind: "node", node } as const;
          sections.push(section);
          this.#drains.add(section);
        }
        if (simulation.decisions.chance("prepares slowly", 1, 2)) {
          await simulation.scheduler.turn("prepares");
        }
      },
      commit: () => {
        release();
        commit();
      },
      abort: release,
    };
  }

  #failure(): TransactionStep {
    const { simulation } = this.#site;
    return {
      name: "failure",
      prepare: async () => {
        if (simulation.decisions.chance("fails slowly", 1, 2)) {
          await simulation.scheduler.turn("fails");
        }
        throw injected("the change", "a step");
      },
    };
  }

  async #insertNode(at: ModelNode): Promise<void> {
    const { graph } = this.#site;
    const { isApart } = at;
    const filter = this.#newNode("filter", "f", { isApart });
    const isDoomed = this.#mayFail(filter);
    await this.#site.perform({
      name: `insert node ${filter.name} above ${at.name}`,
      isAlone: true,
      isDoomed,
      change: () => {
        this.#addNode(filter, at);
        this.#moves.insert(filter, at).change();
      },
      run: async () => {
        await graph.insertNode(this.#filterOptions(filter, at), this.#site.node(at.name));
      },
    });
    this.#site.probes.failingOpens.delete(filter.name);
  }

  async #openFilter(at: ModelNode): Promise<ModelNode | undefined> {
    if (this.#site.simulation.decisions.chance("a filter in a filter", 1, 4)) {
      return this.#openTwoFilters(at);
    }
    const isJealous = this.#site.simulation.decisions.chance("is jealous", 1, 5);
    const filter = this.#newNode("filter", "f", { isApart: at.isApart, isJealous });
    const isOpen = await this.#open(
      filter,
      at,
      () => this.#filterOptions(filter, at),
      // When it is linked it has no driver yet that says what it minds.
      isJealous,
    );
    return isOpen ? filter : undefined;
  }

  /** A filter whose file is a filter that is opened with it, and belongs to its parents alone. */
  async #openTwoFilters(at: ModelNode): Promise<ModelNode | undefined> {
    const { graph, probes } = this.#site;
    const { isApart } = at;
    const outer = this.#newNode("filter", "f", { isApart });
    const inner = {
      ...this.#newNode("filter", "f", { isApart }),
      ...{ isOwned: false, heirOf: outer },
    };
    const isDoomed = this.#mayFail(outer) || this.#mayFail(inner);
    const { file, ...options } = this.#filterOptions(outer, inner);
    const isOpen = await this.#site.perform({
      name: `open ${outer.name} with ${file} over ${at.name}`,
      isAlone: true,
      isDoomed,
      change: () => {
        this.#addNode(inner, at);
        this.#addNode(outer, inner);
      },
      run: async () => {
        await graph.open({ ...options, file: this.#filterOptions(inner, at) });
      },
    });
    probes.failingOpens.delete(outer.name);
    probes.failingOpens.delete(inner.name);
    return isOpen ? outer : undefined;
  }

  async #open(
    node: ModelNode,
    at: ModelNode,
    options: () => Readonly<Record<string, unknown>> & { readonly driver: string },
    isAlone: boolean,
  ): Promise<boolean> {
    const { graph, model, probes } = this.#site;
    const isDoomed = this.#mayFail(node);
    // The driver that an extension refuses is closed again: until then nobody else may count on the node.
    const isQuiet = isAlone || probes.failingOpens.get(node.name) === "in an extension";
    const operation: Operation = {
      name: `open ${node.name} over ${at.name}`,
      // What is not owned may be let go of while it waits to become a child.
      isAlone: isQuiet || !at.isOwned,
      isDoomed,
      change: () => this.#addNode(node, at),
      isDone: () => !isQuiet && this.#isLinked(node, at),
      undo: () => {
        model.nodes.delete(node.name);
        model.edges = model.edges.filter(({ parent }) => parent !== node);
      },
      run: async () => {
        await graph.open(options());
      },
    };
    const isOpen = await this.#site.perform(operation);
    probes.failingOpens.delete(node.name);
    return isOpen;
  }

  /** An overlay over a file of its own that is opened with it. */
  async #openOverlay(): Promise<ModelNode | undefined> {
    const { graph, model, probes, simulation } = this.#site;
    const medium = this.#freeMedia.pop();
    if (medium === undefined) return this.#moves.pickKind("overlay");
    const disk = model.node(`disk-${medium}`);
    const isImage = simulation.decisions.chance("holds metadata", 1, 4);
    const overlay = { ...this.#newNode("overlay", "o"), isImage };
    const file = { ...this.#newNode("raw", "o"), name: `${overlay.name}-file`, isOwned: false };
    Object.assign(file, { number: OVERLAY_WINDOW, heirOf: overlay });
    const isDoomed = this.#mayFail(overlay) || this.#mayFail(file);
    const isOpen = await this.#site.perform({
      name: `open ${overlay.name}`,
      isAlone: true,
      isDoomed,
      change: () => {
        this.#addNode(file, disk);
        this.#addNode(overlay, file);
      },
      run: async () => {
        await graph.open({
          driver: "x-blocklayer-overlay",
          "node-name": overlay.name,
          metadata: isImage,
          file: {
            driver: "raw",
            "node-name": file.name,
            file: disk.name,
            ...this.#windowOf(OVERLAY_WINDOW),
          },
        });
      },
    });
    probes.failingOpens.delete(overlay.name);
    probes.failingOpens.delete(file.name);
    return isOpen ? overlay : undefined;
  }

  #newNode(
    kind: ModelNode["kind"],
    prefix: string,
    { isJealous = false, isApart = false }: Partial<ModelNode> = {},
  ): ModelNode {
    this.#nodeCount += 1;
    return {
      isRoot: false,
      name: `${prefix}${this.#nodeCount}`,
      kind,
      number: 0,
      readOnly: false,
      isJealous,
      isApart,
      isImage: false,
      label: "",
      heirOf: undefined,
      isOwned: true,
      uses: 0,
      changes: 0,
      blocks: 0,
    };
  }

  #addNode(node: ModelNode, file: ModelNode): void {
    const { model } = this.#site;
    refuseIf(model.nodes.get(file.name) !== file, `${file.name} is gone`);
    model.nodes.set(node.name, node);
    modelAttach(model, node, "file", "file", file);
  }

  #filterOptions(
    filter: ModelNode,
    at: ModelNode,
  ): { readonly driver: string; readonly file: string } & Readonly<Record<string, unknown>> {
    return {
      driver: "x-blocklayer-transparent",
      "node-name": filter.name,
      jealous: filter.isJealous,
      file: at.name,
    };
  }

  #isLinked(node: ModelNode, at: ModelNode): boolean {
    const parents = this.#site.graph.findNode(at.name)?.parents ?? [];
    return [...parents].some(({ parent }) => parent.describe() === `node '${node.name}'`);
  }

  #mayFail(node: ModelNode): boolean {
    const { probes, simulation } = this.#site;
    if (!simulation.decisions.chance("the opening fails", 1, 6)) return false;
    const where = ["after its children", "before its children", "in an extension"] as const;
    probes.failingOpens.set(node.name, simulation.decisions.among("fails", where));
    return true;
  }
}

/** Keeps the nodes that a change is about from the instant on in which it has the graph for itself. */
class ChangeClaim {
  readonly #model: GraphModel;
  readonly #moves: readonly Move[];
  #nodes: ModelNode[] = [];

  constructor(model: GraphModel, moves: readonly Move[]) {
    this.#model = model;
    this.#moves = moves;
  }

  take(): void {
    if (this.#nodes.length > 0) return;
    this.#nodes = [...drainedFor(this.#moves)];
    for (const node of this.#nodes) node.changes += 1;
  }

  release(): void {
    for (const node of this.#nodes.splice(0)) node.changes -= 1;
    this.#model.collect();
  }
}

function isRemovable({ model }: GraphSite, node: ModelNode): boolean {
  const hasParents = model.edges.some((edge) => edge.node === node);
  return node.isOwned && !hasParents && node.uses === 0 && node.blocks === 0;
}
