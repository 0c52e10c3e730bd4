import type { BlockBackend, Edge } from "@blocklayer/block-graph";
import { RequestFlag, type RequestOptions } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { type ModelRoot, NOWHERE, type View } from "./graph-model.ts";
import type { GraphRequest, GraphRequestKind } from "./graph-oracle.ts";
import { isInjected } from "./graph-probe.ts";
import type { GraphSite, SiteClient } from "./graph-site.ts";

const KINDS = ["write", "read", "zeroes", "discard", "flush"] as const;
const WEIGHTS = [6, 4, 2, 1, 1];
/** Cells of the longest request. */
const CELLS_MAX = 6;

/** The requests of a backend. Those that its permissions do not allow it sends too. */
type Disk = Pick<
  BlockBackend,
  "edge" | "read" | "write" | "writev" | "writeZeroes" | "discard" | "flush" | "close"
>;

export interface GraphGuestOptions {
  readonly site: GraphSite;
  readonly name: string;
  readonly number: number;
  readonly root: ModelRoot;
  readonly mayWrite: boolean;
  readonly disk: Disk;
}

/** A client of a backend. It goes on whatever surgeons do, and changes its mind about some requests. */
export class GraphGuest implements SiteClient {
  readonly name: string;
  readonly number: number;
  readonly root: ModelRoot;
  readonly mayWrite: boolean;
  #view: View | undefined = undefined;
  /** It was plugged into a chain that leads nowhere. */
  #wasBlind: boolean = false;
  /** Its backend is being closed. */
  isLeaving: boolean = false;
  readonly disk: Disk;
  readonly #site: GraphSite;
  readonly #running: Promise<void>[] = [];

  constructor({ site, name, number, root, mayWrite, disk }: GraphGuestOptions) {
    this.#site = site;
    this.name = name;
    this.number = number;
    this.root = root;
    this.mayWrite = mayWrite;
    this.disk = disk;
  }

  get view(): View | undefined {
    return this.#view;
  }

  set view(view: View | undefined) {
    this.#view = view;
    if (view === undefined || view.includes(NOWHERE)) this.#wasBlind = true;
  }

  get edge(): Edge | undefined {
    return this.disk.edge;
  }

  /** Sends requests, some of them before the last one has ended; resolves when all have. */
  async work(count: number): Promise<void> {
    const { decisions, scheduler } = this.#site.simulation;
    for (let index = 0; index < count; index += 1) {
      const request = this.#request();
      this.#running.push(request);
      if (decisions.chance(`${this.name} goes on`, 1, 2)) continue;
      await request;
      await scheduler.turn(`${this.name} thinks`);
    }
    await Promise.all(this.#running);
  }

  /** Reads everything. */
  async readAll(): Promise<void> {
    await this.#data("read", 0, this.#site.oracle.size, {}, undefined);
  }

  #request(): Promise<void> {
    const { simulation, oracle } = this.#site;
    const { decisions } = simulation;
    const kind = KINDS[decisions.weighted(`${this.name} request`, WEIGHTS, KINDS)] ?? "write";
    const cells = oracle.size / oracle.cellSize;
    const cell = kind === "flush" ? 0 : decisions.choose(`${this.name} cell`, cells);
    const bound = Math.min(CELLS_MAX, cells - cell);
    const count = kind === "flush" ? 0 : 1 + decisions.choose(`${this.name} cells`, bound);
    const [offset, length] = [cell * oracle.cellSize, count * oracle.cellSize];
    const controller = this.#changesItsMind();
    const signal = controller?.signal;
    return simulation.operation(`${this.name} ${kind} ${offset}+${length}`, () =>
      kind === "flush"
        ? this.#flush()
        : this.#data(kind, offset, length, signal === undefined ? {} : { signal }, signal),
    );
  }

  #changesItsMind(): AbortController | undefined {
    const { decisions, scheduler } = this.#site.simulation;
    if (!decisions.chance(`${this.name} changes its mind`, 1, 12)) return undefined;
    const controller = new AbortController();
    const abort = (): void => controller.abort(cancelled);
    this.#running.push(scheduler.turn(`${this.name} changes its mind`).then(abort));
    return controller;
  }

  async #flush(): Promise<void> {
    const { handOvers } = this.#site;
    try {
      await this.disk.flush();
    } catch (error) {
      this.#judge(error, handOvers, undefined);
    }
  }

  async #data(
    kind: GraphRequestKind,
    offset: number,
    length: number,
    options: RequestOptions,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { oracle, handOvers, simulation } = this.#site;
    const request = oracle.begin(kind, this, offset, length);
    const buffer = kind === "write" ? oracle.payload(request) : new Uint8Array(length);
    try {
      await this.#send(request, buffer, options);
    } catch (error) {
      oracle.end(request, false);
      this.#judge(error, handOvers, signal);
      return;
    }
    const problem = kind === "read" ? oracle.check(request, buffer) : undefined;
    if (problem !== undefined) simulation.fail("wrong data", problem);
    oracle.end(request, true);
    simulation.expect(kind === "read" || this.mayWrite, "written without permission", () => {
      return `${this.name}: ${kind} of ${length} bytes at ${offset}`;
    });
  }

  #send(
    { kind, offset, length }: GraphRequest,
    buffer: Uint8Array,
    options: RequestOptions,
  ): Promise<void> {
    const { disk } = this;
    const { decisions } = this.#site.simulation;
    if (kind === "read") return disk.read(offset, buffer, options);
    if (kind === "discard") return disk.discard(offset, length, options);
    const flags = decisions.among(`${this.name} flags`, [0, 0, RequestFlag.fua]);
    if (kind === "zeroes") return disk.writeZeroes(offset, length, { ...options, flags });
    if (!decisions.chance(`${this.name} sends a vector`, 1, 6)) {
      return disk.write(offset, buffer, { ...options, flags });
    }
    const middle = Math.floor(length / 2);
    const parts = [buffer.subarray(0, middle), buffer.subarray(middle)];
    return disk.writev(offset, parts, { ...options, flags });
  }

  #judge(error: unknown, handOvers: number, signal: AbortSignal | undefined): void {
    const { simulation } = this.#site;
    if (error === cancelled) {
      simulation.sometimes("a request was cancelled");
      simulation.expect(signal?.aborted === true, "cancelled by nobody", () => this.name);
      return;
    }
    if (!(error instanceof BlockError)) throw error;
    simulation.sometimes(`a guest's request failed with ${error.code}`);
    simulation.expect(
      isInjected(error) || this.#isExplained(error, handOvers),
      "error from nowhere",
      () => `${this.name}: ${error.code} ${error.message}`,
    );
  }

  #isExplained({ code }: BlockError, handOvers: number): boolean {
    const { site, isOut } = { site: this.#site, isOut: this.#site.handOvers !== handOvers };
    switch (code) {
      case "ENOMEDIUM":
        return this.isLeaving || this.#wasBlind || this.#view === undefined;
      case "EPERM":
        return !this.mayWrite || isOut || !site.model.isActive;
      default:
        return site.faultCount > 0;
    }
  }
}

const cancelled = { reason: "the guest does not want it any more" };
