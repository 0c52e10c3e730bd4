import type { DrainHold } from "@blocklayer/block-graph";
import type { BlockJob, BlockJobDriver, OnError } from "@blocklayer/block-job";
import { assert, BlockError } from "@blocklayer/errors";
import type { JobContext, JobDriver } from "@blocklayer/jobs";
import type { Decisions } from "../decisions.ts";
import type { Simulation } from "../simulation.ts";
import type { JobRecord } from "./job-record.ts";

/** What a callback throws that must not: it is to be reported, and to change nothing. */
export class PlantedDefect extends Error {
  override readonly name: string = "PlantedDefect";
}

const STEPS = [
  "work",
  "sleep",
  "yield",
  "charge",
  "error",
  "surgery",
  "nodes",
  "fail",
  "stubborn",
] as const;
const CANCELS = ["by force", "softly when ready", "always by force"] as const;
const ENDS = ["fine", "slow", "drains", "fails"] as const;

/** What a toy job does, drawn before it begins. */
interface ToyPlan {
  readonly steps: readonly (typeof STEPS)[number][];
  readonly hasReady: boolean;
  readonly isPatient: boolean;
  readonly canComplete: boolean;
  readonly completeFails: boolean;
  readonly cancel: (typeof CANCELS)[number];
  readonly pause: "at once" | "slow" | "fails";
  readonly prepare: (typeof ENDS)[number];
  readonly clean: (typeof ENDS)[number];
  readonly throwsInTheEnd: boolean;
}

function drawToyPlan(decisions: Decisions, mayFail: boolean): ToyPlan {
  const fail = mayFail ? 1 : 0;
  const steps: ToyPlan["steps"][number][] = [];
  for (let count = decisions.choose("steps", 7); count > 0; count -= 1) {
    steps.push(
      STEPS[decisions.weighted("step", [6, 3, 3, 3, 2 * fail, 2, 2, fail, 1], STEPS)] ?? "work",
    );
  }
  const hasReady = decisions.chance("ready", 1, 3);
  const end = (tag: string): (typeof ENDS)[number] =>
    ENDS[decisions.weighted(tag, [5, 3, 1, fail], ENDS)] ?? "fine";
  return {
    steps,
    hasReady,
    isPatient: decisions.choose("patient", 2) === 0,
    canComplete: hasReady && !decisions.chance("can not complete", 1, 6),
    completeFails: decisions.chance("complete fails", 1, 6),
    cancel: CANCELS[decisions.weighted("cancel", [2, 3, 1], CANCELS)] ?? "by force",
    pause:
      (["at once", "slow", "fails"] as const)[decisions.weighted("pause", [6, 3, fail])] ?? "slow",
    prepare: end("prepare"),
    clean: end("clean"),
    throwsInTheEnd: decisions.chance("throws in the end", 1, 10),
  };
}

/** What a toy needs of its world. */
export interface ToyWorld {
  /** Begins a drained section of a node of the job, if it has one. */
  drain(record: JobRecord): Promise<DrainHold | undefined>;
  /** Takes hold of another node, or lets go of one. */
  changeNodes(record: JobRecord, blockJob: BlockJob): Promise<void>;
  /** Something of the toy's own goes on beside it, and is waited for at the end of the life. */
  background(work: Promise<void>): void;
  /** A callback threw what it must not. */
  threw(): void;
}

/** A job that works in steps, each of which begins behind a pause point, and tells its record what it does. */
export class ToyDriver implements BlockJobDriver {
  readonly record: JobRecord;
  readonly complete?: () => Promise<void>;
  readonly cancel?: (force: boolean) => boolean;
  readonly #simulation: Simulation;
  readonly #world: ToyWorld;
  readonly #plan: ToyPlan;
  #job: JobContext | undefined;
  #isToComplete: boolean = false;
  #isReady: boolean = false;
  #failures = 0;
  #pauses = 0;

  /** @param mayFail - whether it fails by itself */
  constructor(simulation: Simulation, record: JobRecord, world: ToyWorld, mayFail: boolean) {
    this.#simulation = simulation;
    this.record = record;
    this.#world = world;
    const plan = drawToyPlan(simulation.decisions, mayFail);
    this.#plan = plan;
    if (plan.canComplete) this.complete = () => this.#complete();
    if (plan.cancel !== "by force") this.cancel = (force) => this.cancelsByForce(force);
  }

  /** The driver of a job without nodes. */
  get plain(): JobDriver {
    const { cancel, complete } = this;
    return {
      run: (job) => this.work(job),
      pause: () => this.pause(),
      resume: () => this.resume(),
      prepare: () => this.prepare(),
      commit: () => this.commit(),
      abort: () => this.abort(),
      clean: () => this.clean(),
      free: () => this.free(),
      ...(cancel === undefined ? {} : { cancel }),
      ...(complete === undefined ? {} : { complete }),
    };
  }

  /** Whether a user's `complete` is passed on. */
  get canComplete(): boolean {
    return this.#plan.canComplete;
  }

  /** Whether the next `complete` will fail. */
  get completeFails(): boolean {
    return this.#plan.completeFails && this.#failures === 0;
  }

  /** What a cancel comes to now. */
  cancelsByForce(force: boolean): boolean {
    return force || this.#plan.cancel !== "softly when ready" || !this.#isReady;
  }

  async run(blockJob: BlockJob): Promise<void> {
    await this.work(blockJob.job, blockJob);
  }

  /** The work of a job with nodes, or of one without. */
  async work(job: JobContext, blockJob?: BlockJob): Promise<void> {
    this.#job = job;
    try {
      for (const step of this.#plan.steps) {
        if (job.isCancelled) break;
        await job.pausePoint();
        if (job.isCancelled) break;
        await this.#step(step, job, blockJob);
      }
      if (this.#plan.hasReady && !job.isCancelled) await this.#beReady(job);
      if (job.cancelRequested && !job.isCancelled)
        this.#simulation.sometimes("a ready job was cancelled softly");
    } catch (error) {
      // The first one is how the job ends.
      this.record.ownError ??= error instanceof BlockError ? error.code : String(error);
      throw error;
    } finally {
      this.record.hasRun = true;
    }
  }

  pause(): void | Promise<void> {
    this.#pauses += 1;
    if (this.#plan.pause === "at once") return undefined;
    return this.#turns(1).then(() => {
      if (this.#plan.pause !== "fails") return;
      this.#pauses -= 1;
      this.record.ownError ??= "ENXIO";
      throw new BlockError("ENXIO", "can not be quiet");
    });
  }

  resume(): void {
    this.#pauses -= 1;
    this.#simulation.expect(this.#pauses === 0, "JB-5 resumed twice", () => `${this.#pauses}`);
  }

  async prepare(): Promise<void> {
    this.record.called("prepare");
    await this.#end(this.#plan.prepare);
    if (this.#plan.prepare !== "fails") return;
    this.record.ownError = "EDOM";
    throw new BlockError("EDOM", "can not be prepared");
  }

  commit(): void {
    this.record.called("commit");
    this.#throwInTheEnd();
  }

  abort(): void {
    this.record.called("abort");
    this.#throwInTheEnd();
  }

  async clean(): Promise<void> {
    this.record.called("clean");
    await this.#end(this.#plan.clean);
    if (this.#plan.clean !== "fails") return;
    this.#world.threw();
    throw new PlantedDefect("clean");
  }

  free(): void {
    this.record.called("free");
    const isFree = this.#pauses === 0;
    this.#simulation.expect(isFree, "JB-5 left at rest", () => this.record.traits.id);
  }

  async #complete(): Promise<void> {
    if (this.completeFails) {
      this.#failures += 1;
      throw new BlockError("ERANGE", "not yet");
    }
    await this.#turns(this.#simulation.decisions.choose("turns to complete", 2));
    this.#isToComplete = true;
    this.#job?.kick();
  }

  #throwInTheEnd(): void {
    if (!this.#plan.throwsInTheEnd) return;
    this.#world.threw();
    throw new PlantedDefect("in the end");
  }

  async #end(how: ToyPlan["clean"]): Promise<void> {
    if (how === "slow") await this.#turns(2);
    if (how !== "drains") return;
    const hold = await this.#world.drain(this.record);
    await this.#turns(1);
    hold?.end();
  }

  async #turns(count: number): Promise<void> {
    const { scheduler } = this.#simulation;
    for (let left = count; left > 0; left -= 1) {
      await scheduler.turn(`${this.record.traits.id} works`);
    }
  }

  /** One step that does something. Nothing of it may happen while the job is at rest. */
  async #doStep(turns: number): Promise<void> {
    this.record.beginStep();
    await this.#turns(turns);
    this.record.endStep();
  }

  async #step(step: ToyPlan["steps"][number], job: JobContext, blockJob?: BlockJob): Promise<void> {
    const { decisions } = this.#simulation;
    await this.#doStep(step === "stubborn" ? 3 : decisions.choose("turns", 3));
    job.progress.workDone(1);
    if (step === "sleep") await this.#rest(() => job.sleep(decisions.among("ms", [0, 10, 500])));
    if (step === "charge") {
      const delayMs = job.limiter.delay(1 + decisions.choose("charge", 4096));
      await this.#rest(() => job.sleep(delayMs));
    }
    if (step === "yield") await this.#await(job);
    if (step === "error" && blockJob !== undefined) await this.#meetError(blockJob);
    if (step === "surgery" && blockJob !== undefined) {
      await this.#rest(() => blockJob.surgery(() => this.#turns(2)));
    }
    if (step === "nodes" && blockJob !== undefined) {
      const change = (): Promise<void> => this.#world.changeNodes(this.record, blockJob);
      await this.#rest(() => blockJob.surgery(change));
    }
    if (step === "fail") throw new BlockError("EIO", "toy failed");
  }

  /** Rests, and does a step right behind it: a rest ends with a pause point. */
  async #rest(rest: () => Promise<void>): Promise<void> {
    await rest();
    if (this.#job?.isCancelled === false) await this.#doStep(0);
  }

  /** Waits for something of its own. */
  async #await(job: JobContext): Promise<void> {
    let isThere = false;
    const arrives = this.#turns(1 + this.#simulation.decisions.choose("turns until", 3)).then(
      () => {
        isThere = true;
        job.kick();
      },
    );
    this.#world.background(arrives);
    while (!isThere && !job.isCancelled) await this.#rest(() => job.yield());
  }

  async #meetError(blockJob: BlockJob): Promise<void> {
    const { decisions } = this.#simulation;
    const policy = decisions.among<OnError>("on error", ["stop", "report", "ignore", "enospc"]);
    const error = new BlockError(decisions.among("error", ["EIO", "ENOSPC"]), "toy error");
    const action = blockJob.errorAction(policy, error, decisions.choose("write", 2) === 0);
    if (action === "report") throw error;
    if (action === "ignore") return;
    if (!this.record.userPaused) this.record.paused(true);
    this.#simulation.sometimes("an error stopped a job");
  }

  async #beReady(job: JobContext): Promise<void> {
    await job.pausePoint();
    if (job.isCancelled) return;
    this.#isReady = true;
    job.setReady();
    while (!this.#isToComplete && !job.cancelRequested) {
      await this.#rest(() => (this.#plan.isPatient ? job.yield() : job.sleep(50)));
    }
    assert(job.isCancelled || job.cancelRequested || this.#isToComplete, "a toy goes on too early");
  }
}
