import type { BackupJob, BackupOptions } from "@blocklayer/backup";
import { isCopyBeforeWrite } from "@blocklayer/backup-top";
import type { BlockNode } from "@blocklayer/block-graph";
import type { DirtyBitmap } from "@blocklayer/dirty-bitmap";
import { assert, BlockError } from "@blocklayer/errors";
import type { TransactionStep } from "@blocklayer/jobs";
import type { DiskOperation } from "../disk/disk-behaviour.ts";
import type { Simulation } from "../simulation.ts";
import type { SourceDisk } from "./backup-disk.ts";
import { BackupOracles } from "./backup-oracles.ts";
import type { BackupPlan } from "./backup-plan.ts";
import type { BackupStack, TargetDisk } from "./backup-stack.ts";

/** Times that a job is told to go on before it counts as one that does not end. */
const NUDGES_MAX = 400;

export interface BackupRunOptions {
  readonly simulation: Simulation;
  readonly stack: BackupStack;
  readonly source: SourceDisk;
  readonly target: TargetDisk;
  readonly plan: BackupPlan;
}

/** One backup from its start to its end, as its user sees it, and the oracles that judge it. */
export class BackupRun {
  /** Changes when its user thinks better of it. */
  plan: BackupPlan;
  readonly source: SourceDisk;
  readonly target: TargetDisk;
  readonly oracles: BackupOracles;
  readonly #simulation: Simulation;
  readonly #stack: BackupStack;
  readonly #listeners: Disposable[] = [];
  #backup: BackupJob | undefined;
  /** An error was reported: the job may not succeed any more. */
  #isReported: boolean = false;
  /** Events that tell how the job ended. */
  #endings = 0;
  #isConcluded: boolean = false;

  constructor({ simulation, stack, source, target, plan }: BackupRunOptions) {
    this.#simulation = simulation;
    this.#stack = stack;
    this.source = source;
    this.target = target;
    this.plan = plan;
    this.oracles = new BackupOracles(simulation, source, target, plan.options);
  }

  get options(): BackupOptions {
    return this.plan.options;
  }

  /** The backup, once started. */
  get backup(): BackupJob {
    const backup = this.#backup;
    assert(backup !== undefined, "the backup is started");
    return backup;
  }

  /** Whether the job has concluded. */
  get isConcluded(): boolean {
    return this.#isConcluded;
  }

  /** The node of its filter, if it is there. */
  get filterNode(): BlockNode | undefined {
    return this.#stack.graph.findNode(this.options["filter-node-name"] ?? "");
  }

  /** Whether guests write through its filter, and what they overwrite is saved. */
  get isSaving(): boolean {
    const node = this.filterNode;
    if (node === undefined || this.oracles.instant === undefined) return false;
    const { driver, parents } = node;
    return parents.size > 0 && isCopyBeforeWrite(driver) && driver.snapshotError === undefined;
  }

  /** Whether the job holds its nodes. */
  get isHolding(): boolean {
    return this.#backup !== undefined && this.#backup.blockJob.nodes.length === 2;
  }

  /** The bitmap that it was given. */
  get bitmap(): DirtyBitmap | undefined {
    const { bitmap } = this.options;
    return bitmap === undefined ? undefined : this.#stack.bitmaps.lookup(this.source.name, bitmap);
  }

  /** Returns a step that takes note of the instant. */
  rememberStep(): TransactionStep {
    return {
      name: "remember the instant",
      prepare: () => undefined,
      commit: () => this.oracles.remember(this.bitmap),
    };
  }

  /** Listens to what is told of the job; to be called before it is started. */
  listen(): void {
    const { events } = this.#stack.jobs;
    const { "job-id": id } = this.options;
    const countEnding = ({ device }: { readonly device: string }): void => {
      if (device === id) this.#endings += 1;
    };
    this.#listeners.push(
      events.on("error", ({ device, operation, action }) => {
        if (device === id) this.#checkAction(operation, action);
      }),
      events.on("completed", countEnding),
      events.on("cancelled", countEnding),
    );
  }

  /** Takes over what was started. */
  begin(backup: BackupJob): void {
    this.#backup = backup;
    void backup.job.completed().then(() => {
      this.#isConcluded = true;
    });
  }

  /** Nothing was started. */
  giveUp(): void {
    for (const listener of this.#listeners) listener[Symbol.dispose]();
  }

  /** A request that changes the source is submitted. */
  onSubmit(operation: DiskOperation, offset: number, length: number): void {
    const { isSaving } = this;
    if (isSaving) this.oracles.beforeOverwrite(operation, offset, length);
    const isOwn =
      operation === "discard" &&
      this.options["discard-source"] === true &&
      !this.source.isDiscardedByGuest(offset, length);
    if (!isOwn) return;
    // An overlay makes several requests of one, and guests wait for the last of them.
    this.#simulation.expect(
      isSaving || this.source.store !== undefined,
      "discarded for nobody",
      () => `${length} bytes at ${offset}`,
    );
    this.#giveBack(offset, length);
  }

  /**
   * Lets the job end: by a cancel, or by its own work, for which nothing may fail any more.
   *
   * @param heal - makes faults stop
   */
  async end(heal: () => void): Promise<BlockError | undefined> {
    const { job } = this.backup;
    if (this.plan.isCancelled && !(job.status === "concluded")) return this.#cancel();
    heal();
    for (let count = 0; !this.#isConcluded; count += 1) {
      this.#simulation.expect(count < NUDGES_MAX, "does not end", () => `job is ${job.status}`);
      attempt(() => job.setSpeed(0));
      attempt(() => job.resume());
      if (job.status === "pending" && !job.autoFinalize) await this.#answer();
      await this.#simulation.scheduler.turn("nudge", 1000);
    }
    return job.completed();
  }

  /**
   * The job has ended.
   *
   * @param isAlone - whether nobody else can have made it fail. Default `true`
   */
  judge(
    error: BlockError | undefined,
    { isAlone = true }: { readonly isAlone?: boolean } = {},
  ): void {
    const { isCancelled, options } = this.plan;
    const sometimes = (name: string): void => this.#simulation.sometimes(name);
    if (error === undefined) sometimes("a backup succeeded");
    else sometimes(`a backup failed with ${error.code}`);
    if (error === undefined) sometimes(`a backup of mode ${options.sync} succeeded`);
    if (this.backup.guestWriteDelay().count > 0) sometimes("a guest waited for a copy");
    this.#simulation.expect(
      error === undefined || isCancelled || !isAlone || error.code !== "ECANCELED",
      "cancelled by nobody",
      () => error?.message ?? "",
    );
    this.#simulation.expect(
      error === undefined || error.code === "ECANCELED" || this.#isExplained(error),
      "error from nowhere",
      () => `the job failed with ${error?.code ?? ""}: ${error?.message ?? ""}`,
    );
    this.#simulation.expect(
      error !== undefined || options.sync !== "none",
      "ended by itself",
      () => "a job that only saves what guests overwrite has succeeded",
    );
    this.#simulation.expect(
      error !== undefined || !this.#isReported,
      "error dropped",
      () => "a job has succeeded that had reported an error",
    );
    this.#simulation.expect(this.#endings === 1, "ending told", () => `${this.#endings} times`);
    this.oracles.judge(error, this.bitmap);
  }

  /** Takes the job out of the list, if it waits for that. */
  dismiss(): void {
    this.giveUp();
    const { job } = this.backup;
    if (job.status === "concluded") job.dismiss();
  }

  /** A job that waits for its user: finalized, or cancelled in the last moment. */
  async #answer(): Promise<void> {
    const { job } = this.backup;
    if (this.#simulation.decisions.chance("cancels what is pending", 1, 3)) {
      this.plan = { ...this.plan, isCancelled: true };
      this.#simulation.sometimes("a pending job was cancelled");
      attempt(() => job.cancel({ force: true }));
      return;
    }
    await this.#simulation.operation("finalize", () => this.#finalize());
  }

  /** Somebody may have done it for a sibling. */
  async #finalize(): Promise<void> {
    try {
      await this.backup.job.finalize();
    } catch (error) {
      if (!(error instanceof BlockError) || error.code !== "EPERM") throw error;
    }
  }

  async #cancel(): Promise<BlockError | undefined> {
    const { job } = this.backup;
    this.#simulation.sometimes("a job was cancelled");
    if (this.#simulation.decisions.chance("cancels softly", 1, 3)) {
      attempt(() => job.resume());
      attempt(() => job.cancel());
    } else {
      attempt(() => job.cancel({ force: true }));
    }
    for (let count = 0; !this.#isConcluded; count += 1) {
      this.#simulation.expect(count < NUDGES_MAX, "does not end", () => `job is ${job.status}`);
      if (job.status === "pending") attempt(() => job.cancel({ force: true }));
      await this.#simulation.scheduler.turn("waits for the end", 1000);
    }
    return job.completed();
  }

  /** The policy that was given for an operation says what is done about its errors. */
  #checkAction(operation: "read" | "write", action: "ignore" | "report" | "stop"): void {
    const name = operation === "read" ? "on-source-error" : "on-target-error";
    const policy = this.options[name] ?? "report";
    const allowed = policy === "enospc" || policy === "auto" ? ["report", "stop"] : [policy];
    this.#simulation.expect(
      allowed.includes(action),
      "policy not followed",
      () => `${action} after a failed ${operation}, where the policy is ${policy}`,
    );
    if (action === "report") this.#isReported = true;
    if (action === "stop") this.#simulation.sometimes("an error stopped a job");
  }

  /** What the job discards guests may find gone, but what they write later not. */
  #giveBack(offset: number, length: number): void {
    this.#simulation.sometimes("a job gave back what it had copied");
    this.oracles.beforeGivingBack(offset, length);
    const { oracle } = this.source;
    oracle.end(oracle.begin("discard", offset, Math.min(length, this.source.size - offset)), true);
  }

  #isExplained(error: BlockError): boolean {
    // A guest's write that was late breaks the snapshot, which ends the job.
    const mayBeLate = this.options["cbw-timeout"] !== 0;
    return error.code === "ETIMEDOUT" ? mayBeLate : this.#stack.isExplained(error);
  }
}

/** A verb that the job's state refuses is part of the game. */
export function attempt(verb: () => void): void {
  try {
    verb();
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
  }
}
