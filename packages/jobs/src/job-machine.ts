import { assert, type BlockError, textOfErrno } from "@blocklayer/errors";
import type { BlockJobInfo, CancelOptions, JobInfo, JobOptions } from "./job.ts";
import { JobActivity } from "./job-activity.ts";
import { errnoError, failureOf, refusal } from "./job-errors.ts";
import type { GroupMember, JobGroup } from "./job-group.ts";
import type { JobHome } from "./job-home.ts";
import { announce, announceError, announcePending, blockJobInfo, jobInfo } from "./job-report.ts";
import { checkTransition, isCompletedStatus, isReadyStatus, type JobStatus } from "./job-status.ts";

/**
 * The life of a job.
 *
 * | the work | `flow.ended` | `busy` | status |
 * | --- | --- | --- | --- |
 * | under way | no | by turns | `running` to `standby` |
 * | has ended, the completion is still to run | yes | yes | as before |
 * | completed (a job that was never started: by its cancel) | yes | no | `waiting` and later |
 *
 * @see spec/jobs.md sections 2 to 9
 */
export class JobMachine extends JobActivity implements GroupMember {
  readonly kind: "plain" | "block";
  readonly autoFinalize: boolean;
  readonly autoDismiss: boolean;
  readonly transaction: JobGroup;
  readonly #completion: JobOptions["completion"];
  readonly #workOver = Promise.withResolvers<void>();
  readonly #concluded = Promise.withResolvers<void>();
  #status: JobStatus = "undefined";
  #error: BlockError | undefined;

  constructor(home: JobHome, options: JobOptions, transaction: JobGroup) {
    super(home, options);
    this.#completion = options.completion;
    this.kind = options.kind ?? "plain";
    this.autoFinalize = options.autoFinalize ?? true;
    this.autoDismiss = options.autoDismiss ?? true;
    this.transaction = transaction;
  }

  override get status(): JobStatus {
    return this.#status;
  }

  get isStarted(): boolean {
    return this.flow.started;
  }

  override get isCompleted(): boolean {
    return isCompletedStatus(this.#status);
  }

  get isReady(): boolean {
    return isReadyStatus(this.#status);
  }

  get error(): BlockError | undefined {
    return this.#error;
  }

  get ret(): number {
    return this.#error?.errno ?? 0;
  }

  // What the driver calls.

  override setReady(): void {
    this.#transition("ready");
    announce(this, this.home.emit, "ready");
  }

  override announceError(operation: "read" | "write", action: "ignore" | "report" | "stop"): void {
    announceError(this, this.home.emit, { operation, action });
  }

  // The beginning.

  /** Makes the job visible. */
  create(): void {
    this.#transition("created");
  }

  start(): void {
    assert(this.#status === "created", () => `a job in state '${this.#status}' can not start`);
    this.flow.begin();
    this.#transition("running");
    this.#main().catch((error: unknown) => this.home.reportDefect(error));
  }

  failEarly(error: BlockError = errnoError(this, "ECANCELED")): void {
    assert(this.#status === "created", () => `a job in state '${this.#status}' can not fail early`);
    this.#error = error;
    this.transaction.remove(this);
    this.#vanish();
    this.#workOver.resolve();
    this.#wakeCompleted();
  }

  async #main(): Promise<void> {
    const error = await this.#work();
    this.flow.end();
    await new Promise<void>((resolve) => this.home.env.wake(resolve, "job exit"));
    this.flow.settle();
    this.#completeWork(error);
  }

  async #work(): Promise<BlockError | undefined> {
    try {
      await this.flow.pausePoint();
      await this.driver.run(this);
      return undefined;
    } catch (error) {
      return failureOf(this, error);
    }
  }

  #completeWork(error: BlockError | undefined): void {
    this.#error = error;
    if (this.#judge() !== undefined) this.transaction.abort(this);
    else this.#transition("waiting");
    this.#workOver.resolve();
    this.transaction.succeed();
  }

  // What the user calls.

  async complete(): Promise<void> {
    this.checkVerb("complete");
    if (this.cancelRequested || this.driver.complete === undefined) {
      const message = `The active block job '${this.id ?? ""}' cannot be completed`;
      throw refusal(this, "complete", "EBUSY", message);
    }
    await this.driver.complete();
  }

  cancel(options: CancelOptions = {}): void {
    const force = options.force ?? false;
    if (this.userPaused && !force) {
      const message = `The block job for device '${this.id ?? ""}' is currently paused`;
      throw refusal(this, "cancel", "EBUSY", message);
    }
    this.checkVerb("cancel");
    this.#cancelNow(force);
  }

  async finalize(): Promise<void> {
    this.checkVerb("finalize");
    await this.transaction.finalize();
  }

  dismiss(): void {
    this.checkVerb("dismiss");
    this.#vanish();
  }

  async completed(): Promise<BlockError | undefined> {
    await this.#concluded.promise;
    return this.#error;
  }

  cancelAndWait(options: CancelOptions = {}): Promise<BlockError | undefined> {
    this.#cancelNow(options.force ?? false);
    return this.finishAndWait();
  }

  async completeAndWait(): Promise<BlockError | undefined> {
    try {
      await this.complete();
    } catch (error) {
      return refusal(this, "complete", "EBUSY", textOfErrno("EBUSY"), { cause: error });
    }
    return await this.finishAndWait();
  }

  async finishAndWait(): Promise<BlockError | undefined> {
    this.flow.hurry();
    try {
      await this.#workOver.promise;
      await this.transaction.idle();
    } finally {
      this.flow.unhurry();
    }
    return this.#error;
  }

  info(): JobInfo {
    return jobInfo(this);
  }

  blockInfo(): BlockJobInfo {
    return blockJobInfo(this);
  }

  // What the transaction calls.

  cancelWithGroup(): void {
    this.requestCancel(true);
    if (this.isStarted) this.flow.kick();
    else this.#completeUnstarted();
  }

  workOver(): Promise<void> {
    return this.#workOver.promise;
  }

  becomePending(): void {
    this.#transition("pending");
    announcePending(this, this.home.emit);
  }

  async prepareEnd(): Promise<BlockError | undefined> {
    try {
      await this.driver.prepare?.();
    } catch (error) {
      this.#error = failureOf(this, error);
      this.#judge();
    }
    return this.#error;
  }

  commitEnd(): void {
    this.guard(() => this.driver.commit?.());
  }

  abortEnd(): void {
    assert(this.#judge() !== undefined, "a job of a transaction that aborts has not failed");
    this.guard(() => this.driver.abort?.());
  }

  async conclude(): Promise<void> {
    try {
      await this.driver.clean?.();
    } catch (error) {
      this.home.reportDefect(error);
    }
    this.guard(() => this.#completion?.(this.#error));
    if (this.isStarted) {
      announce(this, this.home.emit, this.isCancelled ? "cancelled" : "completed");
    }
    this.transaction.remove(this);
    this.#transition("concluded");
    // Whoever was told of the status may have dismissed the job already.
    if ((this.autoDismiss || !this.isStarted) && this.#status === "concluded") this.#vanish();
    this.#wakeCompleted();
  }

  // The rules.

  #cancelNow(force: boolean): void {
    if (this.#status === "concluded") this.#vanish();
    if (this.#status === "aborting" || this.#status === "null") return;
    if (this.transaction.isCommitted) return;
    const hard = !this.isStarted || this.#effectiveForce(force);
    this.requestCancel(hard);
    if (!this.isStarted) {
      this.#completeUnstarted();
      this.transaction.abort(this);
    } else if (!this.flow.ended) {
      this.flow.kick();
    } else if (this.isCancelled) {
      this.transaction.abort(this);
    }
  }

  /** The driver's word on how to cancel. */
  #effectiveForce(force: boolean): boolean {
    const { cancel } = this.driver;
    if (cancel === undefined) return true;
    let effective = true;
    this.guard(() => {
      effective = cancel.call(this.driver, force) || force;
    });
    return effective;
  }

  #completeUnstarted(): void {
    this.flow.settle();
    this.#judge();
    this.#workOver.resolve();
  }

  /** Success of a job that was cancelled by force is no success. Returns the error that the job has now. */
  #judge(): BlockError | undefined {
    if (this.#error === undefined && this.isCancelled) this.#error = errnoError(this, "ECANCELED");
    if (this.#error !== undefined) this.#transition("aborting");
    return this.#error;
  }

  #vanish(): void {
    this.#transition("null");
    this.guard(() => this.driver.free?.());
    this.home.forget(this);
  }

  #wakeCompleted(): void {
    this.home.env.wake(() => this.#concluded.resolve(), "job concluded");
  }

  #transition(target: JobStatus): void {
    const source = this.#status;
    checkTransition(source, target);
    if (source === target) return;
    this.#status = target;
    if (this.id !== undefined) this.home.emit("status", { id: this.id, status: target });
  }

  protected override showPaused(paused: boolean): void {
    const isReady = isReadyStatus(this.#status);
    if (paused) this.#transition(isReady ? "standby" : "paused");
    else this.#transition(isReady ? "ready" : "running");
  }
}
