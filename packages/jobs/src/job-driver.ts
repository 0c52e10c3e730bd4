import type { SliceLimiter } from "@blocklayer/rate-limit";
import type { JobStatus } from "./job-status.ts";
import type { ProgressMeter } from "./progress-meter.ts";

/** A job as its driver sees it. */
export interface JobContext {
  /** `undefined` for an internal job, which no query and no event mentions. */
  readonly id: string | undefined;
  readonly type: string;
  readonly status: JobStatus;
  /** Requests to pause that are in force: one by the user, one per drained section, one before the start. */
  readonly pauseCount: number;
  /** At rest in a pause point, or not started. */
  readonly paused: boolean;
  /** Paused by its user or by an error policy. */
  readonly userPaused: boolean;
  /** Between two rests: working or waiting for something of its own. */
  readonly busy: boolean;
  /** Cancelled by force: stop, nothing that is still done counts. Drivers poll this. */
  readonly isCancelled: boolean;
  /** Cancelled in either way. Softly: finish in the short way that the driver offers. */
  readonly cancelRequested: boolean;
  /** Aborted together with `isCancelled`, for what the driver waits for itself. */
  readonly signal: AbortSignal;
  readonly progress: ProgressMeter;
  /** Bytes a second, 0 for unlimited. */
  readonly speed: number;
  /** Follows `speed`, in slices of 100 ms: charge it, then `sleep` as long as it says. */
  readonly limiter: SliceLimiter;
  /**
   * Rests here while the job should be paused; resolves at once otherwise, and for a job cancelled by force.
   * Between two calls a driver does one step of work.
   */
  pausePoint(): Promise<void>;
  /**
   * Rests until `kick`, then passes a pause point. May return early (paused and resumed meanwhile, cancelled
   * by force), so check again what you wait for, and stop asking once `isCancelled`.
   */
  yield(): Promise<void>;
  /**
   * Rests for `delayMs` (0 or less: one turn of the event loop) or until `kick`, then passes a pause point.
   * A job cancelled by force does not rest. A long loop calls it once per iteration even with 0.
   *
   * @throws RangeError `delayMs` is not a number
   */
  sleep(delayMs: number): Promise<void>;
  /**
   * Wakes a job that rests in `yield` or `sleep`. Without effect on one that is busy, was not started or has
   * finished its work, and on one that has to stay paused.
   */
  kick(): void;
  /** The driver may now be told to `complete`. Only while running. */
  setReady(): void;
  /** Pauses on behalf of the user, who has to `resume`: the action `stop` of an error policy. Twice is once. */
  stopForUser(): void;
  /** Tells the event `error`. */
  announceError(operation: "read" | "write", action: "ignore" | "report" | "stop"): void;
  /** Tells those who wait for quiescence to ask {@link JobDriver.drainedPoll} again. */
  notifyIdle(): void;
}

/**
 * What a job does. Only `run` is mandatory.
 *
 * Where not said otherwise a callback must not fail: an error it throws is a defect, reported by
 * {@link JobManagerOptions.reportDefect}, and changes nothing about the job.
 *
 * | in the end | order |
 * | --- | --- |
 * | all jobs of the transaction succeeded | `prepare` of each, then `commit` of all in one turn, then `clean` of each |
 * | one failed, or its `prepare` did, or was cancelled by force | `abort` and `clean` of each |
 *
 * @see spec/jobs.md section 15
 */
export interface JobDriver {
  /**
   * Does the work. Resolves when it is done; rejects with the {@link BlockError} that the job ends with
   * (an empty message stands for the operating system's text of the code). Stops soon after `isCancelled`.
   */
  run(job: JobContext): Promise<void>;
  /** Called at a pause point before resting: quiesce what the driver does beside `run`. May fail as `run` may. */
  pause?(): void | Promise<void>;
  /** Called when leaving a pause point that called `pause`. */
  resume?(): void;
  /** The user resumes, or cancels, a job that he or an error had paused; called before that. */
  userResume?(): void;
  /** The user wants a ready job to finish. May fail: the user is told, the job stays as it is. */
  complete?(): void | Promise<void>;
  /** The speed has changed; bytes a second. */
  setSpeed?(speed: number): void;
  /**
   * The job is being cancelled. Returns whether by force, that is whether the job stops without further work;
   * must be `true` if `force` is. A driver without this callback always stops by force.
   */
  cancel?(force: boolean): boolean;
  /**
   * Whether work is in flight although the driver rests in a way of its own. Asked while the job is busy; by
   * default a busy job is not quiescent.
   */
  drainedPoll?(): boolean;
  /** The last thing that may fail, when the work of the whole transaction is done. May wait. */
  prepare?(): void | Promise<void>;
  /** The transaction succeeded. Must not wait: all its jobs commit in one turn. */
  commit?(): void;
  /** The job failed, was cancelled, or its transaction was; called whether or not `prepare` was. */
  abort?(): void;
  /** Called once after `commit` or `abort`; gives back nodes and filters. May wait. */
  clean?(): void | Promise<void>;
  /** The job is gone, whatever had become of it, even if it was never started. */
  free?(): void;
}
