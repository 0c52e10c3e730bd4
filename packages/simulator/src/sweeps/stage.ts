import { type BackupJob, Backups } from "@blocklayer/backup";
import { copyBeforeWrite, snapshotAccess } from "@blocklayer/backup-top";
import {
  checkGraph,
  Graph,
  type ResizableBackend,
  type WritableBackend,
} from "@blocklayer/block-graph";
import { BitmapManager } from "@blocklayer/dirty-bitmap";
import { JobManager } from "@blocklayer/jobs";
import { raw } from "@blocklayer/raw";
import { OverlayStore } from "../disk/overlay-store.ts";
import { sameBytes } from "../disk/same-bytes.ts";
import { simulatedOverlay } from "../disk/simulated-overlay.ts";
import { plainEnv } from "../exhaustive/requests.ts";
import type { Simulation } from "../simulation.ts";
import { SimulationFailure } from "../simulation-failure.ts";
import { FailingStore, failingDisk } from "./failing-disk.ts";
import { FailingMedium } from "./failing-medium.ts";
import type { FaultPlan } from "./fault-plan.ts";

export const CLUSTER: number = 65536;
const SIZE = 2 * CLUSTER + 4096;

/** The part of the block layer that a scenario of a sweep plays on: stores that fail, a graph, jobs, and what is expected. */
export class SweepStage {
  readonly simulation: Simulation;
  readonly plan: FaultPlan;
  readonly stores: Map<string, FailingStore> = new Map();
  /** Images over other disks, by name. */
  readonly #images = new Map<string, OverlayStore>();
  readonly graph: Graph;
  readonly bitmaps: BitmapManager;
  readonly jobs: JobManager;
  readonly backups: Backups;
  /** Where errors were reported without being thrown: events and lines for people. */
  readonly told: string[] = [];
  readonly #expected = new Map<string, Uint8Array>();

  constructor(simulation: Simulation, plan: FaultPlan) {
    this.simulation = simulation;
    this.plan = plan;
    const { scheduler } = simulation;
    const env = plainEnv(simulation.env);
    for (const name of ["disk", "other", "target", "target2"]) {
      const fill = { disk: 1, other: 2, target: 0x77, target2: 0x77 }[name] ?? 0;
      const content = new Uint8Array(SIZE).fill(fill);
      this.stores.set(name, new FailingStore(name, content));
    }
    const { stores } = this;
    const drivers = [
      raw,
      failingDisk({ stores, plan, turn: (tag) => scheduler.turn(tag) }),
      copyBeforeWrite(),
      snapshotAccess,
      simulatedOverlay(this.#images),
    ] as const;
    const log = (line: string): void => void this.told.push(line);
    this.graph = new Graph({ env, drivers, log }) as unknown as Graph;
    this.graph.events.on("closeFailed", ({ error }) => log(String(error)));
    this.jobs = new JobManager({
      env,
      reportDefect: (error) => simulation.fail("defect", SimulationFailure.of(error).message),
    });
    this.jobs.events.on("error", ({ device, operation, action }) =>
      log(`job ${device}: ${operation} error, ${action}`),
    );
    this.bitmaps = new BitmapManager(this.graph);
    const { graph, jobs, bitmaps } = this;
    this.backups = new Backups({ graph, jobs, bitmaps });
    scheduler.reporters.push(() => this.jobs.list().map(({ id, status }) => `${id}: ${status}`));
  }

  store(name: string): FailingStore {
    const store = this.stores.get(name);
    if (store === undefined) throw new Error(`there is no store '${name}'`);
    return store;
  }

  /** The image `image`, as {@link newImage} has made it. */
  get image(): OverlayStore {
    const image = this.#images.get("image");
    if (image === undefined) throw new Error("there is no image");
    return image;
  }

  /** Makes an image that holds nothing, for the driver `x-blocklayer-simulated-overlay`. */
  newImage(): void {
    const { simulation } = this;
    const { decisions, scheduler } = simulation;
    const medium = new FailingMedium(
      {
        name: "image",
        size: SIZE,
        decisions,
        post: (tag, deliver, delayMs) => scheduler.post(tag, deliver, delayMs),
        report: (kind, message) => simulation.fail(kind, message),
      },
      this.plan,
    );
    this.#images.set("image", new OverlayStore(medium, decisions));
  }

  /** Opens a store as a node of its own name. */
  async open(name: string): Promise<void> {
    await this.graph.open({
      driver: "x-blocklayer-failing",
      "node-name": name,
      discard: "unmap",
      store: name,
    });
  }

  backend(node: string): Promise<ResizableBackend> {
    return this.graph.createBackend({ node, perm: ["consistent-read", "write", "resize"] });
  }

  /** A backend that does not keep others from a view of fixed length. */
  writer(node: string): Promise<WritableBackend> {
    return this.graph.createBackend({ node, perm: ["consistent-read", "write"] });
  }

  /** Writes through a backend and remembers what has to be there. */
  async write(disk: WritableBackend, store: string, offset: number, fill: number): Promise<void> {
    const buffer = new Uint8Array(1000).fill(fill);
    this.#content(store).set(buffer, offset);
    await disk.write(offset, buffer);
  }

  /** The guest's content: what was written since, and what was there before. */
  expectContent(store: string): void {
    const meant = this.#content(store);
    const { content } = this.store(store);
    const firstWrong = (): number => meant.findIndex((byte, index) => byte !== content[index]);
    this.expect(sameBytes(meant, content), "wrong content", () => `${store} from ${firstWrong()}`);
  }

  /** What the guest has written is not remembered from here on: it did something else with this range. */
  meant(store: string, change: (content: Uint8Array) => void): void {
    change(this.#content(store));
  }

  /** Only these nodes are left, nothing is in flight, and no job lives. */
  expectBaseline(nodes: readonly string[]): void {
    checkGraph(this.graph);
    const names = this.graph.nodes().map(({ name }) => name);
    const isSame = names.length === nodes.length && nodes.every((name) => names.includes(name));
    this.expect(isSame, "nodes left behind", () => names.join(", "));
    const drained = this.graph
      .nodes()
      .filter(({ quiesceCount, io }) => quiesceCount !== 0 || io.inFlight !== 0);
    this.expect(drained.length === 0, "not at rest", () => drained.map(({ name }) => name).join());
    const jobs = this.jobs.list().map(({ id, status }) => `${id ?? ""} ${status}`);
    this.expect(jobs.length === 0, "jobs left behind", () => jobs.join(", "));
    for (const { name, openCount } of this.stores.values()) {
      const isOpen = this.graph.nodes().some((node) => storeOf(node.name) === name);
      this.expect(openCount === (isOpen ? 1 : 0), "open count", () => `${name}: ${openCount}`);
    }
  }

  expect(condition: boolean, kind: string, message: () => string): void {
    this.simulation.expect(condition, kind, message);
  }

  /** Waits for the end of a job. @throws BlockError it ended with that */
  async finish(job: BackupJob): Promise<void> {
    await job.completed();
  }

  #content(store: string): Uint8Array {
    let content = this.#expected.get(store);
    if (content === undefined) {
      content = this.store(store).content.slice();
      this.#expected.set(store, content);
    }
    return content;
  }
}

/** A node that belongs to a store has its name, or that with `-file`. */
function storeOf(node: string): string {
  return node.replace("-file", "");
}
