import { type BackupJob, Backups } from "@blocklayer/backup";
import { copyBeforeWrite, isCopyBeforeWrite } from "@blocklayer/backup-top";
import { checkGraph, Graph, type WritableBackend } from "@blocklayer/block-graph";
import { BitmapManager, type DirtyBitmap } from "@blocklayer/dirty-bitmap";
import { assert, BlockError } from "@blocklayer/errors";
import { JobManager } from "@blocklayer/jobs";
import type { Medium } from "../disk/medium.ts";
import { simulatedDisk } from "../disk/simulated-disk.ts";
import { RegisterOracle } from "../register-oracle.ts";
import type { Simulation, World } from "../simulation.ts";
import { SimulationFailure } from "../simulation-failure.ts";
import { BackupOracles } from "./backup-oracles.ts";
import { type BackupPlan, CLUSTER, drawBackupPlan } from "./backup-plan.ts";
import { drawBehaviour } from "./drawn-behaviour.ts";
import { Guest } from "./guest.ts";
import { describeGraph } from "./request-layer.ts";

const CELL = 512;
const SECTOR = 4096;
/** Bytes of a bit of the user's bitmap. */
const GRANULARITY = 4096;
/** Times that a job is told to go on before it counts as one that does not end. */
const NUDGES_MAX = 100;

/**
 * A backup under fire: guests write, zero and discard while it runs, disks are slow and fail, the job is paused,
 * drained, slowed down and cancelled. Judged by the point in time, the soundness of the bitmap, what guests read, and
 * by what is left behind.
 */
export const backupWorld: World = {
  name: "backup",
  situations: [
    "a backup succeeded",
    "a backup failed with ECANCELED",
    "a guest waited for a copy",
    "a paused job was quiescent",
    "a job was cancelled",
    "discards pass the filter",
  ],
  run: (simulation) => new BackupLife(simulation).live(),
};

class BackupLife {
  readonly #simulation: Simulation;
  readonly #plan: BackupPlan;
  readonly #source: Medium;
  readonly #target: Medium;
  readonly #oracle: RegisterOracle;
  readonly #oracles: BackupOracles;
  readonly #graph: Graph;
  readonly #jobs: JobManager;
  readonly #bitmaps: BitmapManager;
  readonly #backups: Backups;
  #backend: WritableBackend | undefined;

  constructor(simulation: Simulation) {
    const { decisions, env, scheduler } = simulation;
    this.#simulation = simulation;
    this.#plan = drawBackupPlan(decisions);
    this.#source = this.#medium("source");
    this.#target = this.#medium("target");
    const { size, options, stale } = this.#plan;
    this.#oracle = new RegisterOracle({ disk: 1, size, cellSize: CELL });
    this.#fill();
    if (stale !== 0) this.#target.format(new Uint8Array(size).fill(stale));
    this.#oracles = new BackupOracles(
      simulation,
      { source: this.#source, target: this.#target },
      options,
    );
    const media = new Map([this.#source, this.#target].map((medium) => [medium.name, medium]));
    const drivers = [simulatedDisk(media), copyBeforeWrite()] as const;
    this.#graph = new Graph({ env, drivers }) as unknown as Graph;
    this.#jobs = new JobManager({
      env,
      reportDefect: (error) => simulation.fail("defect", SimulationFailure.of(error).message),
    });
    this.#bitmaps = new BitmapManager(this.#graph);
    this.#backups = new Backups({ graph: this.#graph, jobs: this.#jobs, bitmaps: this.#bitmaps });
    scheduler.reporters.push(
      () => describeGraph(this.#graph),
      () => this.#jobs.list().map((job) => `job '${job.id ?? ""}' is ${job.status}`),
    );
  }

  async live(): Promise<void> {
    const { decisions } = this.#simulation;
    await this.#open();
    await this.#guest("early guest").work(decisions.choose("requests before", 4));
    this.#source.behaviour = drawBehaviour(decisions, "source");
    this.#target.behaviour = drawBehaviour(decisions, "target");
    this.#source.onSubmit = (operation, offset, length) => {
      const driver = this.#disk.node?.driver;
      const isSaving = driver !== undefined && isCopyBeforeWrite(driver);
      if (!isSaving || driver.snapshotError !== undefined) return;
      this.#oracles.beforeOverwrite(operation, offset, length);
    };
    // Requests that are under way at the start are before or after its instant, as a whole.
    const guests = [this.#guest("guest 1").work(decisions.choose("requests", 8))];
    const job = await this.#simulation.operation("start", () => this.#start());
    for (let count = decisions.choose("more guests", 2); count > 0; count -= 1) {
      guests.push(this.#guest(`guest ${count + 1}`).work(decisions.choose("requests", 8)));
    }
    if (decisions.chance("discards pass", 1, 3)) {
      await this.#simulation.operation("reopen the filter", () => this.#passDiscards(job));
    }
    await this.#disturb(job);
    const error = await this.#simulation.operation("end of the job", () => this.#end(job));
    this.#judge(job, error);
    await Promise.all(guests);
    await this.#close();
  }

  async #open(): Promise<void> {
    const graph = this.#graph;
    for (const [name, medium] of [
      ["disk", "source"],
      ["target", "target"],
    ] as const) {
      await graph.open({
        driver: "x-blocklayer-simulated",
        "node-name": name,
        discard: "unmap",
        medium,
        "request-alignment": this.#plan.alignment,
      });
    }
    await this.#bitmaps.add(graph.node("disk"), { name: "bm", granularity: GRANULARITY });
    this.#backend = await graph.createBackend({ node: "disk", perm: ["consistent-read", "write"] });
  }

  get #disk(): WritableBackend {
    const backend = this.#backend;
    assert(backend !== undefined, "the disk is not open");
    return backend;
  }

  #medium(name: string): Medium {
    return this.#simulation.medium({ name, size: this.#plan.size, sectorSize: SECTOR });
  }

  /** Puts stamped content on the source. */
  #fill(): void {
    const { filled, size } = this.#plan;
    const operation = this.#oracle.begin("write", 0, filled);
    const content = new Uint8Array(size);
    content.set(this.#oracle.payload(operation));
    this.#oracle.end(operation, true, true);
    this.#source.format(content);
  }

  #guest(name: string): Guest {
    const { decisions } = this.#simulation;
    return new Guest({
      name,
      simulation: this.#simulation,
      oracle: this.#oracle,
      disk: this.#disk,
      cellsMax: decisions.among(`${name} longest request`, [8, 1, 200]),
      hotCells: decisions.among(`${name} hot cells`, [4, 130, 300]),
      mayFail: (error) => this.#isExplained(error),
    });
  }

  /** Whether something was done to this world that an error can come from. */
  #isExplained(error: BlockError): boolean {
    const mayBeLate = this.#plan.options["cbw-timeout"] !== 0;
    if (error.code === "ETIMEDOUT") return mayBeLate;
    return this.#source.faultCount + this.#target.faultCount > 0;
  }

  async #start(): Promise<BackupJob> {
    const remember = {
      name: "remember the instant",
      prepare: () => undefined,
      commit: () => this.#oracles.remember(this.#bitmap),
    };
    const [job] = await this.#backups.startAll([this.#plan.options], { steps: [remember] });
    assert(job !== undefined, "a backup is started, or refused");
    return job;
  }

  get #bitmap(): DirtyBitmap {
    return this.#bitmaps.lookup("disk", "bm");
  }

  async #disturb(job: BackupJob): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    for (let count = decisions.choose("disturbances", 8); count > 0; count -= 1) {
      await scheduler.turn("before the next disturbance");
      switch (decisions.choose("disturbance", 5)) {
        case 1:
          await this.#simulation.operation("drain", () => this.#drain());
          break;
        case 2:
          attempt(() => job.job.pause());
          await scheduler.turn("paused");
          if (job.job.isQuiescent) this.#simulation.sometimes("a paused job was quiescent");
          attempt(() => job.job.resume());
          break;
        case 3:
          attempt(() => job.job.setSpeed(CLUSTER * decisions.choose("speed", 3)));
          break;
        case 4:
          await scheduler.turn("a second", 1000);
          break;
        default:
      }
    }
  }

  /** Lets the filter, which a backup opens without, pass discards on. It may be gone by now. */
  async #passDiscards({ filterNode }: BackupJob): Promise<void> {
    const { options } = this.#plan;
    try {
      await this.#graph.reopen([
        {
          driver: "copy-before-write",
          "node-name": filterNode.name,
          file: "disk",
          target: "target",
          "on-cbw-error": options["on-cbw-error"],
          "cbw-timeout": options["cbw-timeout"],
          discard: "unmap",
        },
      ]);
      this.#simulation.sometimes("discards pass the filter");
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.#simulation.expect(
        filterNode.state !== "open" || this.#isExplained(error),
        "error from nowhere",
        () => `reopen: ${error.code} ${error.message}`,
      );
    }
  }

  async #drain(): Promise<void> {
    const hold = await this.#graph.node("disk").drain();
    const { inFlight } = this.#source;
    this.#simulation.expect(inFlight === 0, "drained in flight", () => `${inFlight} requests`);
    await this.#simulation.scheduler.turn("drained");
    hold.end();
  }

  /** Lets the job end: by a cancel, or by its own work once nothing fails any more. */
  async #end({ job }: BackupJob): Promise<BlockError | undefined> {
    const { isCancelled } = this.#plan;
    if (isCancelled) {
      attempt(() => job.resume());
      this.#simulation.sometimes("a job was cancelled");
      return job.cancelAndWait();
    }
    this.#simulation.calm();
    let isEnded = false;
    const ended = job.completed().then((error) => {
      isEnded = true;
      return error;
    });
    for (let count = 0; !isEnded; count += 1) {
      this.#simulation.expect(count < NUDGES_MAX, "does not end", () => `job is ${job.status}`);
      attempt(() => job.setSpeed(0));
      attempt(() => job.resume());
      await this.#simulation.scheduler.turn("nudge", 1000);
    }
    return ended;
  }

  #judge(job: BackupJob, error: BlockError | undefined): void {
    const { isCancelled, options } = this.#plan;
    this.#simulation.calm();
    this.#source.onSubmit = undefined;
    if (error === undefined) this.#simulation.sometimes("a backup succeeded");
    else this.#simulation.sometimes(`a backup failed with ${error.code}`);
    if (job.guestWriteDelay().count > 0) this.#simulation.sometimes("a guest waited for a copy");
    this.#simulation.expect(
      error === undefined ||
        (isCancelled && error.code === "ECANCELED") ||
        this.#isExplained(error),
      "error from nowhere",
      () => `the job failed with ${error?.code ?? ""}: ${error?.message ?? ""}`,
    );
    this.#simulation.expect(
      error !== undefined || options.sync !== "none",
      "ended by itself",
      () => "a job that only saves what guests overwrite has succeeded",
    );
    this.#oracles.judge(error, this.#bitmap);
  }

  async #close(): Promise<void> {
    await this.#readAll();
    this.#oracles.expectSound(this.#bitmap);
    checkGraph(this.#graph);
    const left = [
      ...this.#graph
        .nodes()
        .filter(
          ({ name, io, quiesceCount }) =>
            !["disk", "target"].includes(name) || io.inFlight !== 0 || quiesceCount !== 0,
        )
        .map(({ name }) => `node '${name}'`),
      ...this.#jobs.list().map(({ id }) => `job '${id ?? ""}'`),
    ];
    this.#simulation.expect(left.length === 0, "left behind", () => left.join(", "));
    await this.#disk.close();
    await this.#graph.close();
    await this.#simulation.expectNothingPending();
  }

  async #readAll(): Promise<void> {
    const operation = this.#oracle.begin("read", 0, this.#disk.size);
    const buffer = new Uint8Array(this.#disk.size);
    await this.#disk.read(0, buffer);
    const problem = this.#oracle.check(operation, buffer);
    this.#oracle.end(operation, true);
    if (problem !== undefined) this.#simulation.fail("wrong data at the end", problem);
  }
}

/** A verb that the job's state refuses is part of the game. */
function attempt(verb: () => void): void {
  try {
    verb();
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
  }
}
