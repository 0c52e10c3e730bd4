import type { Env } from "@blocklayer/env";
import { BlockError, Emitter } from "@blocklayer/errors";
import type { BlockJobInfo, Job, JobInfo, JobOptions, JobTransaction } from "./job.ts";
import type { JobEvents } from "./job-events.ts";
import { JobGroup } from "./job-group.ts";
import type { JobHome } from "./job-home.ts";
import { JobMachine } from "./job-machine.ts";

export interface JobManagerOptions {
  readonly env: Env;
  /**
   * Told of errors that callbacks throw which must not fail: an event's listener, a driver's `commit`. The jobs
   * go on as if nothing had happened. Default: thrown in a microtask of its own, as an uncaught exception.
   */
  readonly reportDefect?: (error: unknown) => void;
}

const ID = /^[A-Za-z][A-Za-z0-9._-]*$/;

/**
 * Holds the jobs of a process, newest first.
 *
 * @see spec/jobs.md sections 1, 4, 13 and 14
 */
export class JobManager {
  /** Listeners run inside the change that they are told of; verbs may be called from them. */
  readonly events: Emitter<JobEvents> = new Emitter();
  readonly #jobs: Job[] = [];
  readonly #home: JobHome;

  constructor(options: JobManagerOptions) {
    const reportDefect = options.reportDefect ?? throwLater;
    this.#home = {
      env: options.env,
      reportDefect,
      emit: (name, value) => {
        try {
          this.events.emit(name, value);
        } catch (error) {
          reportDefect(error);
        }
      },
      forget: (job) => {
        this.#jobs.splice(this.#jobs.indexOf(job), 1);
      },
    };
  }

  /**
   * Makes a job that waits to be started.
   *
   * @throws {@link BlockError} `EINVAL` not an id, or a negative speed; `EEXIST` the id is in use; `ECANCELED` its
   *   transaction is aborting already
   * @throws RangeError the speed is not a safe integer
   */
  create(options: JobOptions): Job {
    const { id, speed } = options;
    if (id !== undefined) this.#checkId(id);
    const group = options.transaction ?? new JobGroup(this.#home);
    if (!(group instanceof JobGroup)) {
      throw new TypeError("the transaction was not made by JobManager.transaction()");
    }
    const job = new JobMachine(this.#home, options, group);
    group.add(job);
    this.#jobs.unshift(job);
    job.create();
    if (speed !== undefined && speed !== 0) setInitialSpeed(job, speed);
    return job;
  }

  /** Returns a transaction without jobs, for {@link JobOptions.transaction}. */
  transaction(): JobTransaction {
    return new JobGroup(this.#home);
  }

  /**
   * Returns the job with that id.
   *
   * @throws {@link BlockError} `ENOENT`
   */
  get(id: string): Job {
    const job = this.find(id);
    if (job === undefined) throw new BlockError("ENOENT", "Job not found", { job: id });
    return job;
  }

  /**
   * Returns the block job with that id.
   *
   * @throws {@link BlockError} `ENOENT`, class `DeviceNotActive`: there is none, or it is of kind `"plain"`
   */
  getBlockJob(id: string): Job {
    const job = this.find(id);
    if (job?.kind === "block") return job;
    const errorClass = "DeviceNotActive";
    throw new BlockError("ENOENT", `Block job '${id}' not found`, { job: id }, { errorClass });
  }

  /** Returns the job with that id, `undefined` if there is none. */
  find(id: string): Job | undefined {
    return this.#jobs.find((job) => job.id === id);
  }

  /** Returns all jobs, internal ones too, newest first. */
  list(): Job[] {
    return [...this.#jobs];
  }

  /** Returns a row for each job that has an id, newest first. */
  query(): JobInfo[] {
    return this.#jobs.filter((job) => job.id !== undefined).map((job) => job.info());
  }

  /** Returns a row for each block job that has an id, newest first. */
  queryBlockJobs(): BlockJobInfo[] {
    return this.#jobs
      .filter((job) => job.id !== undefined && job.kind === "block")
      .map((job) => job.blockInfo());
  }

  /** Cancels by force and dismisses until there is no job left, jobs made meanwhile included. */
  async cancelAll(): Promise<void> {
    while (this.#jobs.length > 0) {
      await Promise.all(this.list().map((job) => job.cancelAndWait({ force: true })));
    }
  }

  #checkId(id: string): void {
    if (!ID.test(id)) throw new BlockError("EINVAL", `Invalid job ID '${id}'`, { job: id });
    if (this.find(id) !== undefined) {
      throw new BlockError("EEXIST", `Job ID '${id}' already in use`, { job: id });
    }
  }
}

function setInitialSpeed(job: Job, speed: number): void {
  // Whoever was told of the job may have cancelled it already.
  if (job.isCompleted) return;
  try {
    job.setSpeed(speed);
  } catch (error) {
    job.failEarly();
    throw error;
  }
}

function throwLater(error: unknown): void {
  // biome-ignore lint/style/noRestrictedGlobals: the exception is to be uncaught; nobody waits for this.
  queueMicrotask(() => {
    throw error;
  });
}
