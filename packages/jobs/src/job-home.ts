import type { Env } from "@blocklayer/env";
import type { Job } from "./job.ts";
import type { Emit } from "./job-report.ts";

/** What jobs and their transactions need of their manager. */
export interface JobHome {
  readonly env: Env;
  readonly emit: Emit;
  readonly reportDefect: (error: unknown) => void;
  /** Drops a job that is gone. */
  forget(job: Job): void;
}
