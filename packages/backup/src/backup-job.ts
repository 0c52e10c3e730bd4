import type { CopyBeforeWriteDriver, DelaySnapshot } from "@blocklayer/backup-top";
import type { BlockNode } from "@blocklayer/block-graph";
import type { BlockJob } from "@blocklayer/block-job";
import { BlockError } from "@blocklayer/errors";
import type { Job } from "@blocklayer/jobs";
import type { SyncMode } from "./backup-options.ts";

/** A backup that was started. */
export class BackupJob {
  readonly blockJob: BlockJob;
  /** The node of the copy-before-write filter; gone when the job has concluded. */
  readonly filterNode: BlockNode;
  readonly #filter: CopyBeforeWriteDriver;
  readonly #sync: SyncMode;

  constructor(
    blockJob: BlockJob,
    filterNode: BlockNode,
    filter: CopyBeforeWriteDriver,
    sync: SyncMode,
  ) {
    this.blockJob = blockJob;
    this.filterNode = filterNode;
    this.#filter = filter;
    this.#sync = sync;
  }

  get job(): Job {
    return this.blockJob.job;
  }

  /**
   * Resolves when the job has concluded.
   *
   * @throws BlockError the error it ended with; `ECANCELED` when it was cancelled
   */
  async completed(): Promise<void> {
    const error = await this.job.completed();
    if (error !== undefined) throw error;
  }

  /** How long guest writes were delayed by copy-before-write so far, in milliseconds. */
  guestWriteDelay(): DelaySnapshot {
    return this.#filter.writeDelay.snapshot();
  }

  /**
   * Begins a new point in time: the next write to each cluster is saved anew. For `sync: "none"`; replication
   * uses it.
   *
   * @throws BlockError `ENOTSUP` the job has another sync mode; `ENOMEDIUM` it has ended
   */
  async checkpoint(): Promise<void> {
    if (this.#sync !== "none") {
      throw new BlockError(
        "ENOTSUP",
        `The backup job only supports block checkpoint in sync=none mode, not ${this.#sync}`,
        { node: this.filterNode.name, operation: "checkpoint", sync: this.#sync },
      );
    }
    this.#checkRunning();
    const hold = await this.filterNode.drain();
    try {
      this.#checkRunning();
      this.#filter.begin({});
    } finally {
      hold.end();
    }
  }

  #checkRunning(): void {
    if (this.filterNode.state === "open") return;
    throw new BlockError("ENOMEDIUM", "The backup has ended", {
      node: this.filterNode.name,
      operation: "checkpoint",
    });
  }
}
