import { SliceLimiter } from "@blocklayer/rate-limit";
import type { JobOptions } from "./job.ts";
import type { JobContext, JobDriver } from "./job-driver.ts";
import { errnoError, refusal, refusalByStatus } from "./job-errors.ts";
import { JobFlow } from "./job-flow.ts";
import type { JobHome } from "./job-home.ts";
import { acceptsVerb, type JobStatus, type JobVerb } from "./job-status.ts";
import { ProgressMeter } from "./progress-meter.ts";

const SLICE_MS = 100;

/**
 * A job at work: pauses, speed and the marks of a cancel. What the work leads to is for the heir.
 *
 * @see spec/jobs.md sections 6, 7, 8 and 10
 */
export abstract class JobActivity implements JobContext {
  readonly id: string | undefined;
  readonly type: string;
  readonly progress: ProgressMeter = new ProgressMeter();
  readonly limiter: SliceLimiter;
  protected readonly home: JobHome;
  protected readonly driver: JobDriver;
  protected readonly flow: JobFlow;
  readonly #abortController = new AbortController();
  #speed = 0;
  #userPaused: boolean = false;
  #cancelRequested: boolean = false;
  #isCancelled: boolean = false;

  constructor(home: JobHome, options: JobOptions) {
    this.home = home;
    this.driver = options.driver;
    this.id = options.id;
    this.type = options.type;
    this.limiter = new SliceLimiter(home.env.clock);
    this.flow = new JobFlow(home.env, {
      isCancelled: () => this.#isCancelled,
      quiesce: () => this.driver.pause?.(),
      restart: () => this.guard(() => this.driver.resume?.()),
      showPaused: (paused) => this.showPaused(paused),
      reportDefect: (error) => home.reportDefect(error),
    });
  }

  abstract readonly status: JobStatus;
  abstract readonly isCompleted: boolean;
  abstract setReady(): void;
  abstract announceError(operation: "read" | "write", action: "ignore" | "report" | "stop"): void;
  /** Shows in the status that the job rests or goes on. */
  protected abstract showPaused(paused: boolean): void;
  get pauseCount(): number {
    return this.flow.pauseCount;
  }

  get paused(): boolean {
    return this.flow.paused;
  }

  get userPaused(): boolean {
    return this.#userPaused;
  }

  get busy(): boolean {
    return this.flow.busy;
  }

  get isCancelled(): boolean {
    return this.#isCancelled;
  }

  get cancelRequested(): boolean {
    return this.#cancelRequested;
  }

  get signal(): AbortSignal {
    return this.#abortController.signal;
  }

  get speed(): number {
    return this.#speed;
  }

  get isQuiescent(): boolean {
    if (!this.flow.busy || this.isCompleted) return true;
    let isActive = true;
    this.guard(() => {
      isActive = this.driver.drainedPoll?.() ?? true;
    });
    return !isActive;
  }

  pausePoint(): Promise<void> {
    return this.flow.pausePoint();
  }

  yield(): Promise<void> {
    return this.flow.yield();
  }

  sleep(delayMs: number): Promise<void> {
    return this.flow.sleep(delayMs);
  }

  kick(): void {
    this.flow.kick();
  }

  notifyIdle(): void {
    this.flow.notifyIdle();
  }

  stopForUser(): void {
    if (this.#userPaused) return;
    this.#userPaused = true;
    this.flow.pause();
  }

  pause(): void {
    this.checkVerb("pause");
    if (this.#userPaused) throw refusal(this, "pause", "EBUSY", "Job is already paused");
    this.#userPaused = true;
    this.flow.pause();
  }

  resume(): void {
    if (!this.#userPaused || this.flow.pauseCount === 0) {
      throw refusal(this, "resume", "EINVAL", "Can't resume a job that was not paused");
    }
    this.checkVerb("resume");
    this.guard(() => this.driver.userResume?.());
    this.#userPaused = false;
    this.flow.resume();
  }

  setSpeed(speed: number): void {
    this.checkVerb("set-speed");
    if (speed < 0) {
      const message = "Parameter 'speed' expects a non-negative value";
      throw refusal(this, "set-speed", "EINVAL", message, { speed });
    }
    const old = this.#speed;
    this.limiter.setSpeed(speed, SLICE_MS);
    this.#speed = speed;
    this.guard(() => this.driver.setSpeed?.(speed));
    if (speed === 0 || speed > old) this.flow.kickSleeper();
  }

  drainPause(): void {
    this.flow.pause();
  }

  drainResume(): void {
    this.flow.resume();
  }

  async quiescent(): Promise<void> {
    while (!this.isQuiescent) await this.flow.nextIdle();
  }

  /** Marks the job cancelled and drops the pause of its user; wakes nobody. */
  protected requestCancel(force: boolean): void {
    if (this.#userPaused) {
      this.guard(() => this.driver.userResume?.());
      this.#userPaused = false;
      this.flow.forgetPause();
    }
    if (!force && this.flow.ended) return;
    this.#cancelRequested = true;
    if (!force || this.#isCancelled) return;
    this.#isCancelled = true;
    this.#abortController.abort(errnoError(this, "ECANCELED"));
  }

  protected checkVerb(verb: JobVerb): void {
    if (!acceptsVerb(this.status, verb)) throw refusalByStatus(this, verb);
  }

  /** Calls what must not fail. */
  protected guard(callback: () => void): void {
    try {
      callback();
    } catch (error) {
      this.home.reportDefect(error);
    }
  }
}
