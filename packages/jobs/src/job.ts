import type { BlockError } from "@blocklayer/errors";
import type { JobContext, JobDriver } from "./job-driver.ts";
import type { JobStatus } from "./job-status.ts";

export interface JobOptions {
  /**
   * A letter, then letters, digits, `-`, `.` and `_`; unique among the manager's jobs. Without one the job is
   * internal: no query and no event mentions it.
   */
  readonly id?: string | undefined;
  /** What queries call it: `"backup"`, `"create"`, … */
  readonly type: string;
  /** `"block"` jobs send all events and answer to the block job commands. Default `"plain"`. */
  readonly kind?: "plain" | "block";
  readonly driver: JobDriver;
  /** Bytes a second. Default 0, unlimited. */
  readonly speed?: number;
  /** Whether the job ends without `finalize`. Default `true`. */
  readonly autoFinalize?: boolean;
  /** Whether it disappears without `dismiss`. Default `true`. */
  readonly autoDismiss?: boolean;
  /** The jobs to succeed or fail with. Default: a transaction of its own. */
  readonly transaction?: JobTransaction;
  /** Told once, between the driver's `clean` and the event, how the job ended: not of a job that failed early. */
  readonly completion?: (outcome: BlockError | undefined) => void;
}

/** Jobs that succeed or fail together; made by {@link JobManager.transaction}. */
export interface JobTransaction {
  /** The jobs that are in it, newest first. A job leaves when it is concluded. */
  readonly jobs: readonly Job[];
  /** A member has failed or was cancelled by force, so all will fail. */
  readonly isAborting: boolean;
}

/** One row of the job query. */
export interface JobInfo {
  readonly id: string;
  readonly type: string;
  readonly status: JobStatus;
  readonly currentProgress: number;
  readonly totalProgress: number;
  readonly error?: string;
}

/** One row of the block job query, but for what only the block job knows. */
export interface BlockJobInfo {
  readonly type: string;
  readonly device: string;
  readonly len: number;
  readonly offset: number;
  readonly busy: boolean;
  readonly paused: boolean;
  readonly speed: number;
  readonly ready: boolean;
  readonly status: JobStatus;
  readonly autoFinalize: boolean;
  readonly autoDismiss: boolean;
  readonly error?: string;
}

export interface CancelOptions {
  /** Whether to stop whatever the driver would rather do. */
  readonly force?: boolean;
}

/**
 * An activity with a life of its own, and the verbs that its user has for it.
 *
 * A verb that the status does not allow fails with `EPERM`. The verbs that wait act within the call; their
 * promise is about what follows.
 *
 * @see spec/jobs.md
 */
export interface Job extends JobContext {
  readonly kind: "plain" | "block";
  readonly autoFinalize: boolean;
  readonly autoDismiss: boolean;
  readonly transaction: JobTransaction;
  /** `start` was called. */
  readonly isStarted: boolean;
  /** The work is over: status `waiting`, `pending`, `aborting`, `concluded` or `null`. */
  readonly isCompleted: boolean;
  /** The user may `complete`: status `ready` or `standby`. */
  readonly isReady: boolean;
  /** How it failed, as soon as that is known. */
  readonly error: BlockError | undefined;
  /** 0, or the negative error number of `error`. */
  readonly ret: number;

  /** Starts the work; at a pause point, so a job that is drained begins by pausing. Once, while created. */
  start(): void;
  /** Gives up a job whose creation could not be finished: status `null`, nothing else told. While created. */
  failEarly(error?: BlockError): void;

  /** @throws {@link BlockError} `EPERM`; `EBUSY` the user has paused it already */
  pause(): void;
  /** Undoes `pause`; the job goes on when nothing else keeps it. @throws {@link BlockError} `EPERM`; `EINVAL` not paused */
  resume(): void;
  /**
   * Changes the speed, ending a sleep if there is more of it now.
   *
   * @param speed - bytes a second, 0 for unlimited
   * @throws {@link BlockError} `EPERM`; `EINVAL` negative
   * @throws RangeError not a safe integer
   */
  setSpeed(speed: number): void;
  /** Asks a ready job to finish. @throws {@link BlockError} `EPERM`; `EBUSY` cancelled, or the driver can not; what the driver throws */
  complete(): Promise<void>;
  /**
   * Ends the job, dropping its results unless the driver has a softer way and `force` is not set.
   *
   * A job whose transaction is just committing has succeeded already: nothing happens.
   *
   * @throws {@link BlockError} `EPERM`; `EBUSY` paused by the user and not forced
   */
  cancel(options?: CancelOptions): void;
  /** Lets the whole transaction end; resolves when it has. @throws {@link BlockError} `EPERM` */
  finalize(): Promise<void>;
  /** Removes a concluded job. @throws {@link BlockError} `EPERM` */
  dismiss(): void;

  /** Resolves with the outcome (`undefined` for success) when the job is concluded. Never rejects. */
  completed(): Promise<BlockError | undefined>;
  /**
   * Cancels in any state (a concluded job is dismissed), ends sleeps and waits until the work is over and the
   * transaction at rest. Never rejects.
   *
   * @returns how it ended, `undefined` for success
   */
  cancelAndWait(options?: CancelOptions): Promise<BlockError | undefined>;
  /** The same with `complete`; `EBUSY` if that was refused. */
  completeAndWait(): Promise<BlockError | undefined>;
  /** The same without doing anything but ending sleeps. */
  finishAndWait(): Promise<BlockError | undefined>;

  /** Begins a drained section. Counted. */
  drainPause(): void;
  /** Ends a drained section. */
  drainResume(): void;
  /** Nothing of the job is in flight; it would begin by passing a pause point. */
  readonly isQuiescent: boolean;
  /** Resolves when `isQuiescent`. */
  quiescent(): Promise<void>;

  /** @see spec/jobs.md section 14 */
  info(): JobInfo;
  /** @see spec/jobs.md section 14 */
  blockInfo(): BlockJobInfo;
}
