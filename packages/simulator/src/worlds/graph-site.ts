import { type BlockNode, checkGraph, type Edge, type Graph } from "@blocklayer/block-graph";
import { BlockError } from "@blocklayer/errors";
import type { Medium } from "../disk/medium.ts";
import type { Simulation } from "../simulation.ts";
import { SimulationFailure } from "../simulation-failure.ts";
import { fingerprint, productGraph } from "./graph-fingerprint.ts";
import { type GraphModel, ModelRefusal, type ModelRoot, type View } from "./graph-model.ts";
import type { GraphClient, GraphOracle } from "./graph-oracle.ts";
import { isInjected, type Probes } from "./graph-probe.ts";

/** One thing that a surgeon does. */
export interface Operation {
  readonly name: string;
  /** What it makes of the model; it happens in the turn in which the graph does it. Throws a ModelRefusal. */
  readonly change: () => void;
  /** @param commit - to be called within the turn of the change; without it the end of the operation counts */
  readonly run: (commit: () => void) => Promise<void>;
  /** Tells the turn of the change from what the graph says then, where nothing else does. */
  readonly isDone?: () => boolean;
  /** Takes the model back when the operation fails after all. */
  readonly undo?: () => void;
  /** Has to fail, since something in it was made to. */
  readonly isDoomed?: boolean;
  /** Nobody else operates meanwhile. */
  readonly isAlone?: boolean;
}

/** Somebody with requests, and how he holds his node. */
export interface SiteClient extends GraphClient {
  readonly root: ModelRoot;
  readonly edge: Edge | undefined;
  view: View | undefined;
  /** Whether it refuses to let go of its node for a hand-over. */
  setStubborn?(isStubborn: boolean): void;
}

/** Lets operations run side by side, or one alone. First come, first served. */
class Gate {
  #running = 0;
  #isAlone: boolean = false;
  readonly #waiting: { readonly isAlone: boolean; readonly enter: () => void }[] = [];

  get isEmpty(): boolean {
    return this.#running === 0;
  }

  enter(isAlone: boolean): Promise<void> {
    return new Promise((enter) => {
      this.#waiting.push({ isAlone, enter });
      this.#admit();
    });
  }

  leave(): void {
    this.#running -= 1;
    this.#isAlone = false;
    this.#admit();
  }

  #admit(): void {
    for (;;) {
      const [next] = this.#waiting;
      if (next === undefined || this.#isAlone || (next.isAlone && this.#running > 0)) return;
      this.#waiting.shift();
      this.#running += 1;
      this.#isAlone = next.isAlone;
      next.enter();
    }
  }
}

export interface SiteParts {
  readonly simulation: Simulation;
  readonly graph: Graph;
  readonly model: GraphModel;
  readonly probes: Probes;
  readonly oracle: GraphOracle;
  readonly media: readonly Medium[];
}

/** Where surgeons work: the graph beside its model, and the rules by which both are compared. */
export class GraphSite {
  readonly simulation: Simulation;
  readonly graph: Graph;
  readonly model: GraphModel;
  readonly probes: Probes;
  readonly oracle: GraphOracle;
  readonly media: readonly Medium[];
  readonly clients: SiteClient[] = [];
  /** Counts the times at which nodes were handed over or taken back. */
  handOvers = 0;
  readonly #gate = new Gate();
  readonly #pending = new Set<() => void>();
  /** Nodes that the operation under way is to close. */
  #leaving: ReadonlySet<string> = new Set();

  constructor({ simulation, graph, model, probes, oracle, media }: SiteParts) {
    this.simulation = simulation;
    this.graph = graph;
    this.model = model;
    this.probes = probes;
    this.oracle = oracle;
    this.media = media;
    probes.isHeld = (name) => {
      const node = model.nodes.get(name);
      return node !== undefined && model.hasOwner(node) && !this.#leaving.has(name);
    };
    graph.events.on("changed", () => {
      for (const look of [...this.#pending]) look();
    });
  }

  /** Requests to media that were made to fail so far. */
  get faultCount(): number {
    return this.media.reduce((sum, { faultCount }) => sum + faultCount, 0);
  }

  /** Operates, and judges what came of it. @returns whether it was done */
  async perform(operation: Operation): Promise<boolean> {
    const { decisions } = this.simulation;
    const isAlone = decisions.chance("alone", 1, 2) || operation.isAlone === true;
    await this.#gate.enter(isAlone);
    try {
      return await this.simulation.operation(operation.name, () =>
        isAlone ? this.#performAlone(operation) : this.#attempt(operation).then(isDone),
      );
    } finally {
      this.#gate.leave();
      if (this.#gate.isEmpty) this.compare(operation.name);
    }
  }

  /** Does several things one after the other, with nobody else operating in between. */
  async performTogether(
    name: string,
    work: (perform: (operation: Operation) => Promise<boolean>) => Promise<void>,
  ): Promise<void> {
    await this.#gate.enter(true);
    try {
      await this.simulation.operation(name, () =>
        work((operation) => this.#performAlone(operation)),
      );
    } finally {
      this.#gate.leave();
      if (this.#gate.isEmpty) this.compare(name);
    }
  }

  /** The graph is what the model says, now that nobody operates. */
  compare(after: string): void {
    const { model, simulation } = this;
    this.#checkGraph(after);
    const [wanted, found] = [model.describe(), productGraph(this.graph, this.oracle.size)];
    simulation.expect(
      wanted === found,
      "not the graph of the model",
      () => `after ${after}: ${firstDifference(wanted, found)}`,
    );
  }

  /** Tells clients what they are plugged into by now. */
  replug(): void {
    const { model, oracle } = this;
    for (const client of this.clients) {
      const edge = model.edges.find(({ parent }) => parent === client.root);
      const view = edge === undefined ? undefined : model.view(edge.node);
      if (sameView(client.view, view)) continue;
      const wasPlugged = client.view !== undefined;
      client.view = view;
      if (view === undefined) continue;
      if (wasPlugged) this.simulation.sometimes("a client was plugged over");
      oracle.switched(client, view);
    }
  }

  node(name: string): BlockNode {
    return this.graph.node(name);
  }

  isOpen(name: string): boolean {
    return this.graph.findNode(name) !== undefined;
  }

  /** The link of a parent that is no node. */
  edgeOf(root: ModelRoot): Edge | undefined {
    return this.clients.find((client) => client.root === root)?.edge;
  }

  async #performAlone(operation: Operation): Promise<boolean> {
    const { model, simulation, graph } = this;
    const before = fingerprint(graph);
    const names = [...model.nodes.keys()];
    const leaving = new Set<string>();
    const refusal = model.foresee(() => {
      operation.change();
      model.grant();
      model.collect();
      for (const name of names) if (!model.nodes.has(name)) leaving.add(name);
    });
    this.#leaving = refusal === undefined ? leaving : new Set();
    const faults = this.faultCount;
    const { error, isCommitted } = await this.#attempt(operation);
    this.#leaving = new Set();
    if (isCommitted) return true;
    const after = fingerprint(graph);
    simulation.expect(
      before === after,
      "failed and left traces",
      () => `${operation.name}: ${firstDifference(before, after)}`,
    );
    if (refusal !== undefined) simulation.sometimes("a change was refused by the rules");
    simulation.expect(
      refusal !== undefined || isInjected(error) || this.faultCount > faults,
      "refused against the rules",
      () => `${operation.name}: ${String(error)}`,
    );
    return false;
  }

  async #attempt(operation: Operation): Promise<Attempt> {
    const { simulation, model } = this;
    let isCommitted = false;
    const commit = (): void => {
      if (isCommitted) return;
      isCommitted = true;
      this.#commit(operation);
    };
    const look = (): void => {
      if (operation.isDone?.() === true) commit();
    };
    this.#pending.add(look);
    const faults = this.faultCount;
    try {
      await operation.run(commit);
    } catch (error) {
      const isExplained = this.faultCount > faults || isInjected(error);
      if (isCommitted && operation.undo !== undefined) {
        isCommitted = false;
        operation.undo();
        model.grant();
      }
      this.#judge(operation, error, isCommitted, isExplained);
      return { error, isCommitted };
    } finally {
      this.#pending.delete(look);
    }
    simulation.expect(operation.isDoomed !== true, "failure swallowed", () => operation.name);
    commit();
    return { error: undefined, isCommitted };
  }

  /** In the turn of the change the model does the same, and its rules allow it. */
  #commit({ name, change }: Operation): void {
    const { model, simulation } = this;
    const refusal = model.attempt(change);
    simulation.expect(refusal === undefined, "accepted against the rules", () => {
      return `${name}: ${refusal ?? ""}`;
    });
    model.collect();
    this.replug();
  }

  #judge(operation: Operation, error: unknown, isCommitted: boolean, isExplained: boolean): void {
    const { simulation } = this;
    const { name } = operation;
    if (error instanceof SimulationFailure || error instanceof ModelRefusal) throw error;
    const isAggregate = error instanceof AggregateError;
    if (!isAggregate && !(error instanceof BlockError)) throw error;
    if (isInjected(error)) simulation.sometimes("an operation failed where it was made to");
    simulation.expect(
      !isCommitted || isExplained,
      "failed after it was done",
      () => `${name}: ${String(error)}`,
    );
    simulation.expect(
      operation.isDoomed !== true || !isCommitted || isAggregate,
      "done although it failed",
      () => `${name}: ${String(error)}`,
    );
  }

  #checkGraph(after: string): void {
    for (const { name, size, driver, io, definition, filterChild } of this.graph.nodes()) {
      // A filter without a child shows nothing.
      const isLost = definition.isFilter && filterChild === undefined;
      const isRight = isLost || io.inFlight > 0 || size === driver.size;
      this.simulation.expect(isRight, "not the length of the driver", () => {
        return `after ${after}: ${name} has ${size} bytes, its driver ${driver.size}`;
      });
    }
    try {
      checkGraph(this.graph);
    } catch (error) {
      this.simulation.fail("graph broken", `after ${after}: ${String(error)}`);
    }
  }
}

interface Attempt {
  readonly error: unknown;
  readonly isCommitted: boolean;
}

function isDone({ isCommitted }: Attempt): boolean {
  return isCommitted;
}

function sameView(left: View | undefined, right: View | undefined): boolean {
  if (left === undefined || right === undefined) return left === right;
  return left.length === right.length && left.every((place, index) => place === right[index]);
}

function firstDifference(left: string, right: string): string {
  const [wanted, found] = [left.split("\n"), right.split("\n")];
  const index = wanted.findIndex((line, number) => line !== found[number]);
  const at = index < 0 ? wanted.length : index;
  return `'${wanted[at]?.trim() ?? "nothing"}' became '${found[at]?.trim() ?? "nothing"}'`;
}
