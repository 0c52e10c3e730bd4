import type { JobDriver } from "@blocklayer/jobs";
import type { BlockJob } from "./block-job.ts";

/**
 * What a block job does: the callbacks of {@link JobDriver}, of which only `run` is mandatory.
 *
 * Its nodes are detached after its `clean`, before the event that tells of its end.
 *
 * @see spec/jobs.md section 15
 */
export interface BlockJobDriver extends Omit<JobDriver, "run"> {
  /**
   * Does the work. Between two pause points of `blockJob.job` it does one step; inside a drained section of any of
   * its nodes it rests.
   *
   * Rejects with the `BlockError` that the job ends with.
   */
  run(blockJob: BlockJob): Promise<void>;
}

/** What a block job adds to its driver's callbacks. */
export interface DriverHooks {
  run(): Promise<void>;
  userResume(): void;
  drainedPoll(): boolean;
  clean(): Promise<void>;
  free(): void;
}

/**
 * The driver as the job machine calls it. Callbacks whose absence means something stay absent.
 */
export function machineDriver(driver: BlockJobDriver, hooks: DriverHooks): JobDriver {
  const { cancel, complete } = driver;
  return {
    run: () => hooks.run(),
    pause: () => driver.pause?.(),
    resume: () => driver.resume?.(),
    userResume: () => hooks.userResume(),
    setSpeed: (speed) => driver.setSpeed?.(speed),
    drainedPoll: () => hooks.drainedPoll(),
    prepare: () => driver.prepare?.(),
    commit: () => driver.commit?.(),
    abort: () => driver.abort?.(),
    clean: () => hooks.clean(),
    free: () => hooks.free(),
    ...(cancel === undefined ? {} : { cancel: (force) => cancel.call(driver, force) }),
    ...(complete === undefined ? {} : { complete: () => complete.call(driver) }),
  };
}
