import { type ManualEnv, manualEnv, settleTurn } from "@blocklayer/env";
import type { BlockError } from "@blocklayer/errors";
import {
  type Job,
  type JobContext,
  type JobDriver,
  JobManager,
  type JobOptions,
} from "@blocklayer/jobs";

/** A driver that does what the test says, when it says it, and writes down what it is asked. */
export class ScriptedDriver implements JobDriver {
  readonly calls: string[] = [];
  job: JobContext | undefined;
  failure: unknown;
  isDone: boolean = false;
  wantsReady: boolean = false;
  isReady: boolean = false;

  async run(job: JobContext): Promise<void> {
    this.job = job;
    this.calls.push("run");
    while (!this.isDone && !job.isCancelled && !(this.isReady && job.cancelRequested)) {
      if (this.wantsReady && !this.isReady) {
        this.isReady = true;
        job.setReady();
        continue;
      }
      await job.yield();
    }
    if (this.failure !== undefined && !job.isCancelled) throw this.failure;
  }

  finish(failure?: unknown): void {
    this.failure = failure;
    this.isDone = true;
    this.job?.kick();
  }

  ready(): void {
    this.wantsReady = true;
    this.job?.kick();
  }

  commit(): void {
    this.calls.push("commit");
  }

  abort(): void {
    this.calls.push("abort");
  }

  clean(): void | Promise<void> {
    this.calls.push("clean");
  }

  free(): void {
    this.calls.push("free");
  }
}

/** A driver with a ready phase: a soft cancel of a ready job finishes it. */
export class MirrorLikeDriver extends ScriptedDriver {
  complete(): void {
    this.calls.push("complete");
    if (!this.isDone) this.finish();
  }

  cancel(force: boolean): boolean {
    return force || !this.isReady;
  }
}

export interface Bench {
  readonly env: ManualEnv;
  readonly manager: JobManager;
  /** Every event as a short word: `a:running`, `a READY`. */
  readonly events: string[];
  readonly defects: unknown[];
}

/** Returns a manager whose events are written down. */
export function bench(): Bench {
  const env = manualEnv();
  const defects: unknown[] = [];
  const manager = new JobManager({ env, reportDefect: (error) => defects.push(error) });
  return { env, manager, events: recordEvents(manager), defects };
}

export function recordEvents(manager: JobManager): string[] {
  const events: string[] = [];
  manager.events.on("status", ({ id, status }) => events.push(`${id}:${status}`));
  manager.events.on("ready", ({ device }) => events.push(`${device} READY`));
  manager.events.on("pending", ({ id }) => events.push(`${id} PENDING`));
  manager.events.on("error", ({ device, operation, action }) =>
    events.push(`${device} ERROR ${operation} ${action}`),
  );
  manager.events.on("completed", ({ device, error }) =>
    events.push(`${device} COMPLETED${error === undefined ? "" : ` (${error})`}`),
  );
  manager.events.on("cancelled", ({ device }) => events.push(`${device} CANCELLED`));
  return events;
}

/** Makes a block job with a scripted driver; it is not started. */
export function scripted<Driver extends ScriptedDriver = ScriptedDriver>(
  manager: JobManager,
  id: string,
  options: Partial<JobOptions> = {},
  driver: Driver = new ScriptedDriver() as Driver,
): { readonly job: Job; readonly driver: Driver } {
  const job = manager.create({ id, type: "test", kind: "block", driver, ...options });
  return { job, driver };
}

export const settle: () => Promise<void> = settleTurn;

/** What a promise or a call fails with, as one line. */
export function lineOf(error: BlockError): string {
  return `${error.code} ${error.errorClass}: ${error.message}`;
}
