import type { Edge, EdgeParent } from "@blocklayer/block-graph";
import { BlockError } from "@blocklayer/errors";
import { type ModelRoot, NOWHERE, type View } from "./graph-model.ts";
import { injected } from "./graph-probe.ts";
import type { GraphSite, SiteClient } from "./graph-site.ts";

/** A parent that is neither a node nor a backend, like a job: reads by itself, and stops when it is told. */
export class GraphTenant implements SiteClient, EdgeParent {
  readonly kind = "job";
  readonly name: string;
  readonly number: number;
  readonly root: ModelRoot;
  readonly mayWrite: boolean = false;
  view: View | undefined = undefined;
  isLeaving: boolean = false;
  edge: Edge | undefined = undefined;
  readonly #site: GraphSite;
  #quiesceCount = 0;
  #inFlight = 0;
  #isGone: boolean = false;
  #isStubborn: boolean = false;
  #idle: { readonly promise: Promise<void>; readonly resolve: () => void } | undefined;
  readonly #awake: (() => void)[] = [];

  constructor(site: GraphSite, name: string, number: number, root: ModelRoot) {
    this.#site = site;
    this.name = name;
    this.number = number;
    this.root = root;
  }

  get staysAtNode(): boolean {
    return this.root.stays;
  }

  setStubborn(isStubborn: boolean): void {
    this.#isStubborn = isStubborn;
  }

  describe(): string {
    return this.name;
  }

  drainedBegin(): void {
    this.#quiesceCount += 1;
  }

  drainedEnd(): void {
    this.#quiesceCount -= 1;
    const { simulation } = this.#site;
    simulation.expect(this.#quiesceCount >= 0, "undrained too often", () => this.name);
    if (this.#quiesceCount === 0) for (const wake of this.#awake.splice(0)) wake();
  }

  drainedPoll(): Promise<void> | undefined {
    if (this.#inFlight === 0) return undefined;
    this.#idle ??= Promise.withResolvers<void>();
    return this.#idle.promise;
  }

  inactivate(): void {
    if (this.#isStubborn) throw injected(this.name, "inactivate");
  }

  /** Lets go of its node: no request follows. Resolves when none is left. */
  async leave(): Promise<void> {
    this.#isGone = true;
    for (const wake of this.#awake.splice(0)) wake();
    for (let busy = this.drainedPoll(); busy !== undefined; busy = this.drainedPoll()) await busy;
    const { simulation } = this.#site;
    const { edge } = this;
    if (edge !== undefined) await this.#site.graph.detachRoot(edge);
    simulation.expect(this.#quiesceCount === 0, "drained for ever", () => this.name);
  }

  /** Reads now and then. */
  async work(count: number): Promise<void> {
    const { decisions, scheduler, env } = this.#site.simulation;
    for (let index = 0; index < count && !this.#isGone; index += 1) {
      await scheduler.turn(`${this.name} rests`);
      while (this.#quiesceCount > 0 && !this.#isGone) {
        await new Promise<void>((resolve) => {
          this.#awake.push(() => env.wake(resolve, this.name));
        });
      }
      if (this.#isGone || this.view === undefined || this.view.includes(NOWHERE)) continue;
      await this.#read(decisions.choose(`${this.name} cell`, 8));
    }
  }

  async #read(cell: number): Promise<void> {
    const { oracle, simulation } = this.#site;
    const { edge } = this;
    if (edge === undefined) return;
    const request = oracle.begin("read", this, cell * oracle.cellSize, 2 * oracle.cellSize);
    const buffer = new Uint8Array(request.length);
    this.#inFlight += 1;
    try {
      await edge.pread(request.offset, buffer);
      const problem = oracle.check(request, buffer);
      if (problem !== undefined) simulation.fail("wrong data", problem);
      oracle.end(request, true);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      oracle.end(request, false);
      simulation.expect(this.#site.faultCount > 0, "error from nowhere", () => String(error));
    } finally {
      this.#inFlight -= 1;
      if (this.#inFlight === 0) this.#rest();
    }
  }

  #rest(): void {
    this.#idle?.resolve();
    this.#idle = undefined;
  }
}
