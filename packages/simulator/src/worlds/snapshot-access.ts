import { type BackupJob, Backups } from "@blocklayer/backup";
import {
  asCopyBeforeWrite,
  type CopyBeforeWriteDriver,
  copyBeforeWrite,
  snapshotAccess,
} from "@blocklayer/backup-top";
import {
  type BlockNode,
  checkGraph,
  Graph,
  type ReadableBackend,
  type WritableBackend,
} from "@blocklayer/block-graph";
import { BitmapManager } from "@blocklayer/dirty-bitmap";
import { assert, BlockError } from "@blocklayer/errors";
import { JobManager } from "@blocklayer/jobs";
import type { DiskBehaviour } from "../disk/disk-behaviour.ts";
import type { Medium } from "../disk/medium.ts";
import { simulatedDisk } from "../disk/simulated-disk.ts";
import { RegisterOracle } from "../register-oracle.ts";
import type { Simulation, World } from "../simulation.ts";
import { SimulationFailure } from "../simulation-failure.ts";
import { drawBehaviour } from "./drawn-behaviour.ts";
import { Guest } from "./guest.ts";
import { describeGraph } from "./request-layer.ts";
import { drawSnapshotPlan, type SnapshotPlan } from "./snapshot-access-plan.ts";
import { GONE, SLOW_DISCARDS, SnapshotMove } from "./snapshot-move.ts";
import { SnapshotOracle } from "./snapshot-oracle.ts";
import { SnapshotReader } from "./snapshot-readers.ts";

const CELL = 512;
const SECTOR = 4096;
/** Bytes of a bit of the user's bitmap. */
const GRANULARITY = 4096;
/** Reads of the snapshot are still under way when it breaks. */
const SLOW: DiskBehaviour = { atOnce: 0, later: 80, early: 0, slow: 40, faults: 0 };

/**
 * Fleecing: a copy-before-write filter under guests, and a node that shows the instant in which it was inserted to
 * readers, who also give up what they have read; a backup from there; disks that are slow, full and fail; an end
 * while everybody is at work. Judged by the image of the instant, what the guests read, and by what is left behind.
 */
export const snapshotAccessWorld: World = {
  name: "snapshot-access",
  situations: [
    "a snapshot was broken",
    "an access after the snapshot was broken",
    "an access beside the bitmap",
    "an access to what was discarded",
    "a read of kept and other clusters",
    "a guest waited for a copy",
    "guest request failed with ETIMEDOUT",
    "guest request failed with EIO",
    "a backup of the snapshot succeeded",
    "a backup of the snapshot failed",
    "the snapshot ended while readers waited",
    "a source was discarded where it was copied",
    "a snapshot was broken while its source was discarded",
  ],
  run: (simulation) => new SnapshotLife(simulation).live(),
};

class SnapshotLife {
  readonly #simulation: Simulation;
  readonly #plan: SnapshotPlan;
  readonly #disks: { readonly source: Medium; readonly target: Medium; readonly final: Medium };
  readonly #writes: RegisterOracle;
  readonly #oracle: SnapshotOracle;
  readonly #graph: Graph;
  readonly #jobs: JobManager;
  readonly #bitmaps: BitmapManager;
  readonly #backups: Backups;
  readonly #readers: SnapshotReader[] = [];
  readonly #guests: Promise<void>[] = [];
  #backend: WritableBackend | undefined;
  /** Set from the instant on, if the source is discarded where it was copied. */
  #move: SnapshotMove | undefined;

  constructor(simulation: Simulation) {
    const { decisions, env, scheduler } = simulation;
    this.#simulation = simulation;
    const plan = drawSnapshotPlan(decisions);
    this.#plan = plan;
    const medium = (name: string, size = plan.size): Medium =>
      simulation.medium({ name, size, sectorSize: SECTOR });
    const disks = {
      source: medium("source"),
      target: medium("target"),
      final: medium("final", plan.backup === "none" ? SECTOR : plan.size),
    };
    this.#disks = disks;
    this.#writes = new RegisterOracle({ disk: 1, size: plan.size, cellSize: CELL });
    this.#oracle = new SnapshotOracle(simulation, plan, disks);
    const lookup: BitmapManager["lookup"] = (node, name) => this.#bitmaps.lookup(node, name);
    const drivers = [
      simulatedDisk(new Map(Object.entries(disks))),
      copyBeforeWrite({ bitmaps: { lookup } }),
      snapshotAccess,
    ] as const;
    this.#graph = new Graph({ env, drivers }) as unknown as Graph;
    this.#bitmaps = new BitmapManager(this.#graph);
    this.#jobs = new JobManager({
      env,
      reportDefect: (error) => simulation.fail("defect", SimulationFailure.of(error).message),
    });
    this.#backups = new Backups({ graph: this.#graph, jobs: this.#jobs, bitmaps: this.#bitmaps });
    scheduler.reporters.push(
      () => describeGraph(this.#graph),
      () => this.#jobs.list().map((job) => `job '${job.id ?? ""}' is ${job.status}`),
    );
  }

  async live(): Promise<void> {
    const { decisions } = this.#simulation;
    await this.#open();
    await this.#guest("early guest").work(decisions.choose("requests before", 5));
    const { source, target, final } = this.#disks;
    const { isTargetGone, movesAway, guestsStay } = this.#plan;
    source.behaviour = isTargetGone ? SLOW : drawBehaviour(decisions, "source");
    if (guestsStay) {
      const { behaviour } = source;
      source.behaviour = decisions.among("move", [SLOW_DISCARDS, SLOW, behaviour]);
    }
    target.behaviour = isTargetGone ? GONE : drawBehaviour(decisions, "target");
    final.behaviour = drawBehaviour(decisions, "final");
    // Requests that are under way at the instant are before or after it, as a whole.
    const guestCount = movesAway && !guestsStay ? 0 : 1 + decisions.choose("more guests", 3);
    const guests = this.#guests;
    if (guestCount > 0) this.#sendGuest();
    const filter = await this.#simulation.operation("insert", () => this.#insert());
    const driver = asCopyBeforeWrite(filter);
    while (guests.length < guestCount) this.#sendGuest();
    const access = await this.#openAccess();
    const reading = this.#read(access);
    const prefetch = this.#plan.isPrefetched ? this.#prefetch(driver) : undefined;
    const backup = this.#plan.backup === "none" ? undefined : await this.#startBackup();
    const disturbing = this.#plan.isPrefetched ? undefined : this.#disturb();
    if (this.#plan.endsEarly) await this.#moments();
    else await Promise.all([...guests, reading]);
    await disturbing;
    const ended = backup === undefined ? undefined : this.#endBackup(backup);
    await ended;
    prefetch?.cancel();
    await prefetch?.done;
    this.#move?.calm();
    this.#simulation.calm();
    await this.#simulation.operation("end of the snapshot", () => this.#end(access, filter));
    if (driver.writeDelay.snapshot().maxMs > 0) {
      this.#simulation.sometimes("a guest waited for a copy");
    }
    await Promise.all([...guests, reading]);
    await this.#close();
  }

  async #open(): Promise<void> {
    const { size, filled, stale, alignment } = this.#plan;
    const operation = this.#writes.begin("write", 0, filled);
    const content = new Uint8Array(size);
    content.set(this.#writes.payload(operation));
    this.#writes.end(operation, true, true);
    this.#disks.source.format(content);
    if (stale !== 0) this.#disks.target.format(new Uint8Array(size).fill(stale));
    for (const name of ["source", "target", "final"]) {
      await this.#graph.open({
        driver: "x-blocklayer-simulated",
        "node-name": name,
        discard: "unmap",
        medium: name,
        "request-alignment": alignment,
      });
    }
    await this.#bitmaps.add(this.#graph.node("source"), { name: "bm", granularity: GRANULARITY });
    this.#backend = await this.#graph.createBackend({
      node: "source",
      perm: ["consistent-read", "write"],
    });
  }

  get #disk(): WritableBackend {
    const backend = this.#backend;
    assert(backend !== undefined, "the disk is open");
    return backend;
  }

  /** @param reach - cells of its longest request, anywhere on the disk. Default: both drawn */
  #sendGuest(reach?: number): void {
    const guest = this.#guest(`guest ${this.#guests.length + 1}`, reach);
    this.#guests.push(guest.work(this.#simulation.decisions.choose("requests", 10)));
  }

  #guest(name: string, reach?: number): Guest {
    const { decisions } = this.#simulation;
    return new Guest({
      name,
      simulation: this.#simulation,
      oracle: this.#writes,
      disk: this.#disk,
      cellsMax: reach ?? decisions.among(`${name} longest request`, [8, 1, 200]),
      hotCells: reach ?? decisions.among(`${name} hot cells`, [4, 130, 300]),
      mayFail: ({ code }) => this.#mayGuestFail(code),
    });
  }

  /** A guest bears errors of its own disk, and those of copies unless the snapshot bears them. */
  #mayGuestFail(code: string): boolean {
    const { onError, timeout } = this.#plan;
    const { source, target } = this.#disks;
    if (code === "ETIMEDOUT") return onError === "break-guest-write" && timeout !== 0;
    return source.faultCount > 0 || (onError === "break-guest-write" && target.faultCount > 0);
  }

  /** Puts the filter between the guests and the disk, in one turn with the instant. */
  async #insert(): Promise<BlockNode> {
    const { onError, timeout, minClusterSize, hasBitmap, passesDiscards } = this.#plan;
    const { movesAway, guestsStay, size } = this.#plan;
    const graph = this.#graph;
    const filter = await graph.open({
      driver: "copy-before-write",
      "node-name": "cbw",
      file: "source",
      target: "target",
      "on-cbw-error": onError,
      "cbw-timeout": timeout,
      "min-cluster-size": minClusterSize,
      "x-blocklayer-discard-source": movesAway,
      ...(passesDiscards ? { discard: "unmap" } : {}),
      ...(hasBitmap ? { bitmap: { node: "source", name: "bm" } } : {}),
    });
    const driver = asCopyBeforeWrite(filter);
    driver.onSnapshotBroken = () => {
      this.#oracle.broken();
      if (!guestsStay) return;
      this.#move?.broken();
      for (let count = 0; count < 3; count += 1) this.#sendGuest(size / CELL);
    };
    const begin = (): void => {
      const marked = hasBitmap ? this.#bitmaps.lookup("source", "bm").map.clone() : undefined;
      driver.begin({ initial: marked });
      this.#oracle.begin(marked);
      if (movesAway) this.#move = new SnapshotMove(this.#simulation, this.#disks, this.#writes);
      if (this.#move !== undefined && guestsStay) {
        this.#move.onTargetLost = () => this.#sendGuest(size / CELL);
      }
      this.#disks.source.onSubmit = (operation, offset, length) => {
        this.#move?.onSubmit(operation, offset, length);
        this.#oracle.beforeOverwrite(operation, offset, length);
      };
    };
    await graph.change([
      graph.replaceNode(graph.node("source"), filter),
      { name: "begin", prepare: () => undefined, commit: begin },
    ]);
    return filter;
  }

  /** Opens the node that shows the snapshot. Nobody writes there while a backup reads. */
  async #openAccess(): Promise<ReadableBackend> {
    const { backup } = this.#plan;
    await this.#graph.open({
      driver: "snapshot-access",
      "node-name": "access",
      file: "cbw",
      discard: "unmap",
    });
    return backup === "none"
      ? this.#graph.createBackend({ node: "access", perm: ["consistent-read", "write"] })
      : this.#graph.createBackend({ node: "access", perm: ["consistent-read"] });
  }

  async #read(disk: ReadableBackend): Promise<void> {
    const { decisions } = this.#simulation;
    const work: Promise<void>[] = [];
    for (let count = 1 + decisions.choose("readers", 3); count > 0; count -= 1) {
      const reader = new SnapshotReader(`reader ${count}`, {
        simulation: this.#simulation,
        oracle: this.#oracle,
        disk,
        discards: this.#plan.backup === "none" ? (disk as WritableBackend) : undefined,
      });
      this.#readers.push(reader);
      work.push(reader.work(1 + decisions.choose("accesses", 8)));
    }
    await Promise.all(work);
  }

  /** Copies the snapshot in the background, as a backup does. */
  #prefetch({ engine }: CopyBeforeWriteDriver): { cancel(): void; readonly done: Promise<void> } {
    const { decisions } = this.#simulation;
    const { clusterSize } = engine;
    return engine.start(0, Math.ceil(engine.size / clusterSize) * clusterSize, {
      maxWorkers: (this.#plan.guestsStay ? 2 : 1) + decisions.choose("prefetch workers", 3),
      maxChunk:
        clusterSize *
        decisions.among("prefetch chunk", this.#plan.guestsStay ? [1, 1, 2] : [0, 1, 2]),
    });
  }

  async #startBackup(): Promise<BackupJob | undefined> {
    try {
      return await this.#simulation.operation("start the backup", () =>
        this.#backups.start({
          "job-id": "job",
          device: "access",
          target: "final",
          sync: "full",
          "discard-source": this.#plan.backup === "discards",
        }),
      );
    } catch (error) {
      this.#judgeBackupError(error);
      return undefined;
    }
  }

  /** Until it ends by itself, or it is cancelled because the snapshot ends. */
  async #endBackup({ job }: BackupJob): Promise<void> {
    const isCancelled = this.#plan.endsEarly;
    const error = await this.#simulation.operation("end of the backup", () =>
      isCancelled ? job.cancelAndWait() : job.completed(),
    );
    if (error === undefined) {
      this.#simulation.sometimes("a backup of the snapshot succeeded");
      this.#oracle.judgeBackup();
    } else if (!(isCancelled && error.code === "ECANCELED")) {
      this.#judgeBackupError(error);
    }
  }

  #judgeBackupError(error: unknown): void {
    if (!(error instanceof BlockError)) throw error;
    this.#simulation.sometimes("a backup of the snapshot failed");
    const { source, target, final } = this.#disks;
    this.#simulation.expect(
      this.#oracle.isBroken || source.faultCount + target.faultCount + final.faultCount > 0,
      "error from nowhere",
      () => `the backup failed with ${error.code}: ${error.message}`,
    );
  }

  async #moments(): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    for (let turns = decisions.choose("moments", 30); turns > 0; turns -= 1) {
      await scheduler.turn("a moment");
    }
  }

  /** Stops everything for a moment, now and then. What copies in the background is not told, so there is nobody. */
  async #disturb(): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    for (let count = decisions.choose("drains", 3); count > 0; count -= 1) {
      for (let turns = decisions.choose("before the drain", 10); turns > 0; turns -= 1) {
        await scheduler.turn("before the drain");
      }
      await this.#simulation.operation("drain", async () => {
        const hold = await this.#graph.node("source").drain();
        const { source, target } = this.#disks;
        this.#simulation.expect(
          source.inFlight + target.inFlight === 0,
          "drained in flight",
          () => `${source.inFlight} requests to the source, ${target.inFlight} to the target`,
        );
        await scheduler.turn("drained");
        hold.end();
      });
    }
  }

  /** Takes the snapshot apart, readers first, while guests go on. */
  async #end(access: ReadableBackend, filter: BlockNode): Promise<void> {
    const graph = this.#graph;
    for (const reader of this.#readers) reader.stop();
    if (access.inFlight > 0) this.#simulation.sometimes("the snapshot ended while readers waited");
    await access.close();
    await graph.remove("access");
    const end = (): void => {
      this.#oracle.end();
      this.#disks.source.onSubmit = undefined;
    };
    await graph.change([
      graph.dropFilter(filter),
      { name: "end", prepare: () => undefined, commit: end },
    ]);
    await graph.remove("cbw");
  }

  async #close(): Promise<void> {
    const operation = this.#writes.begin("read", 0, this.#disk.size);
    const buffer = new Uint8Array(this.#disk.size);
    await this.#disk.read(0, buffer);
    const problem = this.#writes.check(operation, buffer);
    this.#writes.end(operation, true);
    if (problem !== undefined) this.#simulation.fail("wrong data at the end", problem);
    checkGraph(this.#graph);
    const left = [
      ...this.#graph
        .nodes()
        .filter(
          ({ name, io, quiesceCount }) =>
            !["source", "target", "final"].includes(name) || io.inFlight + quiesceCount > 0,
        )
        .map(({ name }) => `node '${name}'`),
      ...this.#jobs.list().map(({ id }) => `job '${id ?? ""}'`),
    ];
    this.#simulation.expect(left.length === 0, "left behind", () => left.join(", "));
    await this.#disk.close();
    await this.#graph.close();
    await this.#simulation.expectNothingPending();
  }
}
