import { checkGraph, Graph, type WritableBackend } from "@blocklayer/block-graph";
import { BitmapManager } from "@blocklayer/dirty-bitmap";
import type { Medium } from "../disk/medium.ts";
import { simulatedDisk } from "../disk/simulated-disk.ts";
import { simulatedFilter } from "../disk/simulated-filter.ts";
import { RegisterOracle } from "../register-oracle.ts";
import type { Simulation, World } from "../simulation.ts";
import { BitmapJobs } from "./bitmap-jobs.ts";
import { BitmapLedger } from "./bitmap-ledger.ts";
import { CELL, ModelDisk } from "./bitmap-model.ts";
import { BitmapUser, type ResizableDisk } from "./bitmap-user.ts";
import { drawBehaviour } from "./drawn-behaviour.ts";
import { Guest } from "./guest.ts";
import { describeGraph } from "./request-layer.ts";
import { ToyMirror } from "./toy-mirror.ts";
import { WatchedDisk } from "./watched-disk.ts";

const GROUP = 8192;
const GROUPS_MAX = 3;

/**
 * Bitmaps of two nodes under fire: guests write, zero and discard, a user adds, clears, switches, merges and removes
 * bitmaps, alone and in transactions that fail, jobs freeze them, a mirror clears what it copies, a filter comes and goes.
 * Judged by content alone: what differs from the reference instant is dirty.
 */
export const bitmapsWorld: World = {
  name: "bitmaps",
  situations: [
    "a transaction failed",
    "a successor took over",
    "a bitmap was reclaimed",
    "a copy failed",
    "a filter came and went",
    "a disk became shorter",
    "guest request failed with EIO",
    "refused: EBUSY",
    "refused: EEXIST",
    "refused: EINVAL",
    "refused: ENOENT",
  ],
  run: (simulation) => new BitmapsLife(simulation).live(),
};

/** One of the disks that have bitmaps. */
interface Site {
  readonly name: string;
  readonly medium: Medium;
  readonly model: ModelDisk;
  readonly oracle: RegisterOracle;
}

class BitmapsLife {
  readonly #simulation: Simulation;
  readonly #alignment: number;
  /** Bytes: lengths are multiples of it. */
  readonly #unit: number;
  /** Whether the length of the first disk may change. */
  readonly #isResized: boolean;
  readonly #isImpatient: boolean;
  readonly #sites: readonly [Site, ...Site[]];
  readonly #target: Medium;
  readonly #graph: Graph;
  readonly #bitmaps: BitmapManager;
  readonly #ledger: BitmapLedger;
  #mirror: ToyMirror | undefined;

  constructor(simulation: Simulation) {
    const { decisions, env, scheduler } = simulation;
    this.#simulation = simulation;
    this.#alignment = decisions.among("alignment", [512, 1, 4096]);
    this.#unit = Math.max(CELL, this.#alignment);
    const tail = decisions.among("tail", [0, this.#unit]);
    const size = GROUP * (1 + decisions.choose("groups", GROUPS_MAX)) - tail;
    this.#isImpatient = decisions.chance("guests are impatient", 1, 4);
    this.#isResized = decisions.chance("is resized", 1, 3);
    const isOther = decisions.chance("other size", 1, 4);
    this.#sites = [this.#site("disk", 1, size), this.#site("other", 2, isOther ? GROUP : size)];
    this.#target = simulation.medium({ name: "target", size, sectorSize: CELL });
    const media = new Map([
      ...this.#sites.map(({ name, medium }) => [name, medium] as const),
      ["target", this.#target],
    ]);
    const drivers = [simulatedDisk(media), simulatedFilter] as const;
    this.#graph = new Graph({ env, drivers }) as unknown as Graph;
    this.#bitmaps = new BitmapManager(this.#graph);
    const models = this.#sites.map(({ model }) => model);
    this.#ledger = new BitmapLedger(simulation, this.#bitmaps, models);
    scheduler.reporters.push(() => describeGraph(this.#graph));
  }

  async live(): Promise<void> {
    const { decisions } = this.#simulation;
    await this.#open();
    const backends = await Promise.all(this.#sites.map(({ name }) => this.#backend(name)));
    const resizable = await this.#resizable();
    const user = this.#user(resizable);
    await user.add(2 + decisions.choose("bitmaps", 4));
    for (const { medium } of this.#sites) medium.behaviour = drawBehaviour(decisions, medium.name);
    this.#target.behaviour = drawBehaviour(decisions, "target");
    const mirror = await this.#mirrored();
    const work = [
      user.work(decisions.choose("commands", 10)),
      ...this.#guests(backends),
      new BitmapJobs(this.#simulation, this.#ledger).work(decisions.choose("jobs", 4)),
      this.#filter(),
    ];
    await Promise.all(work);
    this.#simulation.calm();
    this.#mirror?.stop();
    await mirror.done;
    await resizable?.disk.close();
    await this.#close(backends);
  }

  #site(name: string, disk: number, size: number): Site {
    const capacity = GROUPS_MAX * GROUP;
    const medium = this.#simulation.medium({ name, size, capacity, sectorSize: CELL });
    const oracle = new RegisterOracle({ disk, size: capacity, cellSize: CELL });
    const model = new ModelDisk(name, () => medium.cache.visible, this.#alignment);
    return { name, medium, model, oracle };
  }

  async #open(): Promise<void> {
    for (const name of [...this.#sites.map((site) => site.name), "target"]) {
      await this.#graph.open({
        driver: "x-blocklayer-simulated",
        "node-name": name,
        discard: "unmap",
        medium: name,
        "request-alignment": this.#alignment,
      });
    }
  }

  #backend(node: string): Promise<WritableBackend> {
    return this.#graph.createBackend({ node, perm: ["consistent-read", "write"] });
  }

  /** Its truncations go by a backend of their own: what may resize may also write beyond the end. */
  async #resizable(): Promise<ResizableDisk | undefined> {
    if (!this.#isResized) return undefined;
    const [{ oracle }] = this.#sites;
    const disk = await this.#graph.createBackend({ node: "disk", perm: ["write", "resize"] });
    return { node: "disk", disk, oracle, unit: this.#unit, capacity: GROUPS_MAX * GROUP };
  }

  #user(resizable: ResizableDisk | undefined): BitmapUser {
    const [{ medium }] = this.#sites;
    return new BitmapUser({
      simulation: this.#simulation,
      graph: this.#graph,
      bitmaps: this.#bitmaps,
      ledger: this.#ledger,
      nodes: ["disk", "other"],
      mayPersist: false,
      faultCount: () => medium.faultCount,
      resizable,
    });
  }

  #guests(backends: readonly WritableBackend[]): Promise<void>[] {
    const { decisions } = this.#simulation;
    return this.#sites.flatMap((site, index) => {
      const backend = backends[index];
      const guests: Promise<void>[] = [];
      if (backend === undefined) return guests;
      const disk = new WatchedDisk(backend, site.model, () => this.#judge());
      for (let count = decisions.choose("guests", 3 - index); count >= 0; count -= 1) {
        const guest = this.#guest(`${site.name} guest ${count + 1}`, site, disk);
        guests.push(guest.work(decisions.choose("requests", index === 0 ? 16 : 8)));
      }
      return guests;
    });
  }

  #guest(name: string, { oracle, medium }: Site, disk: WatchedDisk): Guest {
    return new Guest({
      name,
      simulation: this.#simulation,
      oracle,
      disk,
      cellsMax: this.#simulation.decisions.among(`${name} longest request`, [3, 1, 20]),
      hotCells: 8,
      // Where the disk became shorter there is nothing to write to.
      mayFail: ({ code }) => medium.faultCount > 0 || (this.#isResized && code === "EIO"),
      isImpatient: this.#isImpatient,
    });
  }

  /** Starts the mirror, if there is to be one. */
  async #mirrored(): Promise<{ readonly done: Promise<void> }> {
    const simulation = this.#simulation;
    if (this.#isResized || !simulation.decisions.chance("a mirror", 1, 2))
      return { done: Promise.resolve() };
    const [{ model, medium }] = this.#sites;
    const source = await this.#graph.createBackend({ node: "disk", perm: ["consistent-read"] });
    const target = await this.#backend("target");
    const mirror = new ToyMirror({
      simulation,
      bitmaps: this.#bitmaps,
      source,
      target,
      model,
      targetContent: () => this.#target.cache.visible,
      granularity: simulation.decisions.among("granularity of the mirror", [512, 4096]),
      isExplained: () => medium.faultCount + this.#target.faultCount > 0,
    });
    this.#mirror = mirror;
    const work = async (): Promise<void> => {
      await mirror.work();
      mirror.judge();
      mirror.release();
      await source.close();
      await target.close();
    };
    return { done: simulation.operation("mirror", work) };
  }

  /** A filter that passes everything comes above the disk and goes again; the bitmaps stay where they are. */
  async #filter(): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    for (let count = decisions.choose("filters", 3); count > 0; count -= 1) {
      await scheduler.turn("before the filter");
      const disk = this.#graph.node("disk");
      const options = {
        driver: "x-blocklayer-simulated-filter",
        "node-name": "filter",
        file: "disk",
      };
      await this.#simulation.operation("insert", async () => {
        await this.#graph.insertNode(options as never, disk);
      });
      await scheduler.turn("filtered");
      await this.#simulation.operation("drop", async () => {
        await this.#graph.change([this.#graph.dropFilter(this.#graph.node("filter"))]);
        await this.#graph.remove("filter");
      });
      this.#simulation.sometimes("a filter came and went");
    }
  }

  #judge(): void {
    this.#ledger.judge();
    this.#mirror?.judge();
  }

  async #close(backends: readonly WritableBackend[]): Promise<void> {
    this.#judge();
    for (const { name, oracle } of this.#sites) {
      this.#ledger.judgeNames(this.#graph.node(name));
      const backend = backends[this.#sites.findIndex((site) => site.name === name)];
      if (backend !== undefined) await this.#readAll(backend, oracle);
    }
    checkGraph(this.#graph);
    const left = this.#graph
      .nodes()
      .filter(
        ({ name, io, quiesceCount }) =>
          name === "filter" || io.inFlight !== 0 || quiesceCount !== 0,
      );
    this.#simulation.expect(left.length === 0, "left behind", () =>
      left.map(({ name }) => name).join(),
    );
    for (const backend of backends) await backend.close();
    await this.#graph.close();
    await this.#simulation.expectNothingPending();
  }

  async #readAll(disk: WritableBackend, oracle: RegisterOracle): Promise<void> {
    const operation = oracle.begin("read", 0, disk.size);
    const buffer = new Uint8Array(disk.size);
    await disk.read(0, buffer);
    const problem = oracle.check(operation, buffer);
    oracle.end(operation, true);
    if (problem !== undefined) this.#simulation.fail("wrong data at the end", problem);
  }
}
