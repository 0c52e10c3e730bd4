import { Backups } from "@blocklayer/backup";
import { copyBeforeWrite } from "@blocklayer/backup-top";
import {
  type BlockNode,
  checkGraph,
  Graph,
  type UntypedNodeOptions,
} from "@blocklayer/block-graph";
import { BlockJobs } from "@blocklayer/block-job";
import { BitmapManager, type DirtyBitmap } from "@blocklayer/dirty-bitmap";
import { BlockError } from "@blocklayer/errors";
import { JobManager } from "@blocklayer/jobs";
import type { Medium } from "../disk/medium.ts";
import { OverlayStore } from "../disk/overlay-store.ts";
import { simulatedDisk } from "../disk/simulated-disk.ts";
import { simulatedFilter } from "../disk/simulated-filter.ts";
import { simulatedOverlay } from "../disk/simulated-overlay.ts";
import type { Simulation } from "../simulation.ts";
import { SimulationFailure } from "../simulation-failure.ts";
import {
  DiskContent,
  SECTOR,
  type SourceDisk,
  type TargetShape,
  WrittenSectors,
} from "./backup-disk.ts";
import { CLUSTER } from "./backup-plan.ts";
import { describeGraph } from "./request-layer.ts";

/** Bytes of a bit of the user's bitmaps. */
const GRANULARITY = 4096;

/** A disk that a backup is written to. */
export interface TargetDisk {
  readonly name: string;
  readonly shape: TargetShape;
  readonly medium: Medium;
  readonly content: DiskContent;
  /** Bytes that it says it allocates at once. */
  readonly clusterSize: number;
  readonly written: WrittenSectors;
}

export interface TargetOptions {
  readonly name: string;
  readonly shape: TargetShape;
  readonly size: number;
  readonly alignment: number;
  /** What it is full of at first. */
  readonly stale: number;
  /** The disk that a fleecing image lies over. */
  readonly source: SourceDisk;
}

/** Everything that backups need: a graph over simulated storage, jobs, bitmaps; and what has to be left of it. */
export class BackupStack {
  /** Reopens that are under way. */
  reopening = 0;
  readonly graph: Graph;
  readonly jobs: JobManager;
  readonly blockJobs: BlockJobs;
  readonly bitmaps: BitmapManager;
  readonly backups: Backups;
  readonly #simulation: Simulation;
  readonly #media = new Map<string, Medium>();
  readonly #stores = new Map<string, OverlayStore>();
  /** Nodes that are to be there when no job runs. */
  readonly #expected = new Set<string>();

  constructor(simulation: Simulation) {
    const { env, scheduler } = simulation;
    this.#simulation = simulation;
    const drivers = [
      simulatedDisk(this.#media),
      simulatedOverlay(this.#stores),
      simulatedFilter,
      copyBeforeWrite(),
    ] as const;
    this.graph = new Graph({ env, drivers }) as unknown as Graph;
    this.jobs = new JobManager({
      env,
      reportDefect: (error) => simulation.fail("defect", SimulationFailure.of(error).message),
    });
    this.bitmaps = new BitmapManager(this.graph);
    const { graph, jobs } = this;
    this.blockJobs = new BlockJobs({ graph, jobs });
    this.backups = new Backups({ graph, jobs, bitmaps: this.bitmaps, blockJobs: this.blockJobs });
    scheduler.reporters.push(
      () => describeGraph(this.graph),
      () => this.jobs.list().map((job) => `job '${job.id ?? ""}' is ${job.status}`),
    );
  }

  /** Requests that were made to fail so far. */
  get faultCount(): number {
    let count = 0;
    for (const { faultCount } of this.#media.values()) count += faultCount;
    for (const { medium } of this.#stores.values()) count += medium.faultCount;
    return count;
  }

  /** Requests that media have not answered yet. */
  get inFlight(): number {
    let count = 0;
    for (const { inFlight } of this.#media.values()) count += inFlight;
    for (const { medium } of this.#stores.values()) count += medium.inFlight;
    return count;
  }

  /** Whether something was done to this world that an error like this can come from. */
  isExplained(error: BlockError): boolean {
    return (error.code === "EIO" || error.code === "ENOSPC") && this.faultCount > 0;
  }

  /**
   * Opens a disk with the nodes of its shape, and a backend for guests.
   *
   * @param isAbove - whether guests use it through one more filter
   */
  async openSource(source: SourceDisk, alignment: number, isAbove: boolean): Promise<void> {
    const { graph } = this;
    const { name, shape } = source;
    const isFiltered = shape === "filtered" || shape === "filtered overlay";
    const bottom = isFiltered ? `${name}-below` : name;
    await this.#openBottom(bottom, source, alignment);
    if (isFiltered) await this.#openFilter(name, bottom);
    if (isAbove) await this.#openFilter(`${name}-above`, name);
    source.backend = await graph.createBackend({
      node: isAbove ? `${name}-above` : name,
      perm: ["consistent-read", "write"],
    });
  }

  addBitmap(node: string, name: string): Promise<DirtyBitmap> {
    return this.bitmaps.add(this.graph.node(node), { name, granularity: GRANULARITY });
  }

  /** Opens a target. */
  async openTarget(options: TargetOptions): Promise<TargetDisk> {
    const { name, shape, size, alignment, stale, source } = options;
    const medium = this.#simulation.medium({ name: `${name}-medium`, size, sectorSize: SECTOR });
    if (stale !== 0) medium.format(new Uint8Array(size).fill(stale));
    const written = new WrittenSectors(size);
    medium.onSubmit = (_operation, offset, length) => written.touch(offset, length);
    const isImage = shape === "image" || shape === "wide image" || shape === "fleecing";
    if (!isImage) {
      const bottom = shape === "filtered" ? `${name}-below` : name;
      await this.#openDisk(bottom, medium, alignment);
      if (shape === "filtered") await this.#openFilter(name, bottom);
      return { name, shape, medium, content: new DiskContent(medium), clusterSize: 0, written };
    }
    const store = new OverlayStore(medium, this.#simulation.decisions);
    if (stale !== 0) store.allocate(0, size);
    this.#stores.set(medium.name, store);
    const clusterSize = shape === "wide image" ? 2 * CLUSTER : CLUSTER;
    await this.#open({
      driver: "x-blocklayer-simulated-overlay",
      "node-name": name,
      discard: "unmap",
      store: medium.name,
      "cluster-size": clusterSize,
      ...(shape === "fleecing" ? { backing: source.name } : {}),
    });
    const below = shape === "fleecing" ? () => source.content.now() : () => undefined;
    const content = new DiskContent(medium, store, below);
    return { name, shape, medium, content, clusterSize, written };
  }

  /** Gives a target back, when nobody uses it any more. */
  async removeTarget({ name, shape }: TargetDisk): Promise<void> {
    await this.graph.remove(name);
    this.#expected.delete(name);
    if (shape !== "filtered") return;
    await this.graph.remove(`${name}-below`);
    this.#expected.delete(`${name}-below`);
  }

  /** Puts a filter above a node, in all its parents' places. */
  async insertFilter(name: string, at: BlockNode): Promise<BlockNode> {
    return this.graph.insertNode(
      {
        driver: "x-blocklayer-simulated-filter",
        "node-name": name,
        discard: "unmap",
        file: at.name,
      },
      at,
    );
  }

  /** Takes out what {@link insertFilter} has put in. */
  async dropFilter(node: BlockNode): Promise<void> {
    await this.graph.change([this.graph.dropFilter(node)]);
    await this.graph.remove(node.name);
  }

  /** Says what is there that is there only while jobs run. */
  structure(): string[] {
    checkGraph(this.graph);
    const nodes = this.graph
      .nodes()
      .filter(
        ({ name, quiesceCount, changeCount }) =>
          !this.#expected.has(name) || quiesceCount !== 0 || changeCount !== 0,
      )
      .map(({ name }) => `node '${name}'`);
    const blocked = this.graph
      .nodes()
      .filter((node) => isBlocked(node))
      .map(({ name }) => `operations on node '${name}'`);
    const bitmaps = this.graph
      .nodes()
      .flatMap((node) => this.bitmaps.list(node))
      .filter(({ name, busy, hasSuccessor }) => name === undefined || busy || hasSuccessor)
      .map(({ name }) => `bitmap '${name ?? ""}'`);
    const jobs = this.jobs.list().map(({ id }) => `job '${id ?? ""}'`);
    const blockJobs = this.blockJobs.list().map(({ job }) => `block job '${job.id ?? ""}'`);
    return [...nodes, ...blocked, ...bitmaps, ...jobs, ...blockJobs];
  }

  /** Closes everything. Nothing may be left. */
  async close(sources: readonly SourceDisk[]): Promise<void> {
    const left = this.structure();
    this.#simulation.expect(left.length === 0, "left behind", () => left.join(", "));
    const busy = this.graph.nodes().filter(({ io }) => io.inFlight !== 0);
    this.#simulation.expect(busy.length === 0, "left in flight", () =>
      busy.map(({ name }) => name).join(", "),
    );
    for (const { disk } of sources) await disk.close();
    await this.graph.close();
    const listeners = this.graph.events.listenerCount() + this.jobs.events.listenerCount();
    const { inFlight } = this;
    this.#simulation.expect(
      listeners === 0 && inFlight === 0,
      "left behind",
      () => `${listeners} listeners, ${inFlight} requests in flight`,
    );
    await this.#simulation.expectNothingPending();
  }

  async #openBottom(name: string, source: SourceDisk, alignment: number): Promise<void> {
    const { base, medium, store } = source;
    if (base === undefined || store === undefined) {
      await this.#openDisk(name, medium, alignment);
      return;
    }
    await this.#openDisk(`${source.name}-base`, base, alignment);
    this.#stores.set(medium.name, store);
    await this.#open({
      driver: "x-blocklayer-simulated-overlay",
      "node-name": name,
      discard: "unmap",
      store: medium.name,
      backing: `${source.name}-base`,
    });
  }

  async #openDisk(name: string, medium: Medium, alignment: number): Promise<void> {
    this.#media.set(medium.name, medium);
    await this.#open({
      driver: "x-blocklayer-simulated",
      "node-name": name,
      discard: "unmap",
      medium: medium.name,
      "request-alignment": alignment,
    });
  }

  #openFilter(name: string, file: string): Promise<void> {
    const driver = "x-blocklayer-simulated-filter";
    return this.#open({ driver, "node-name": name, discard: "unmap", file });
  }

  async #open(options: UntypedNodeOptions & { readonly "node-name": string }): Promise<void> {
    await this.graph.open(options);
    this.#expected.add(options["node-name"]);
  }
}

/** Whether some job keeps others off a node. */
function isBlocked(node: BlockNode): boolean {
  try {
    node.checkOperation("backup-source");
    node.checkOperation("backup-target");
    return false;
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return true;
  }
}
