import type { JobStatus } from "./job-status.ts";

/** What `ready`, `completed` and `cancelled` carry. */
export interface BlockJobEvent {
  readonly type: string;
  /** The job's id. */
  readonly device: string;
  /** Total of the progress meter. */
  readonly len: number;
  /** Work done. */
  readonly offset: number;
  readonly speed: number;
}

/**
 * Events of a {@link JobManager}, in the order of the canonical sequences.
 *
 * `status` is told for every job with an id, the others for those of kind `"block"` alone. A status is told
 * before the event that belongs to it; `completed` or `cancelled` come before the status `concluded`.
 *
 * @see spec/jobs.md section 13
 */
export interface JobEvents {
  /** Each actual change, `null` included. */
  readonly status: { readonly id: string; readonly status: JobStatus };
  readonly ready: BlockJobEvent;
  /** The job waits for `finalize` (only without `autoFinalize`), and so do all of its transaction. */
  readonly pending: { readonly type: string; readonly id: string };
  /** An I/O error was judged by the job's error policy. */
  readonly error: {
    readonly device: string;
    readonly operation: "read" | "write";
    readonly action: "ignore" | "report" | "stop";
  };
  /** Ended without being force-cancelled; `error` if it failed. */
  readonly completed: BlockJobEvent & { readonly error?: string };
  /** Ended by a forced cancel, its own or its transaction's. */
  readonly cancelled: BlockJobEvent;
}
