import type { CopyBeforeWriteDriver } from "@blocklayer/backup-top";
import type { CopyCall } from "@blocklayer/block-copy";
import type { BlockNode } from "@blocklayer/block-graph";
import type { BlockJob, BlockJobDriver } from "@blocklayer/block-job";
import type { BlockError } from "@blocklayer/errors";
import type { HBitmap } from "@blocklayer/hbitmap";
import type { JobContext } from "@blocklayer/jobs";
import { alignUp } from "@blocklayer/offsets";
import type { BackupRequest } from "./backup-options.ts";
import type { SyncBitmap } from "./sync-bitmap.ts";

/** What a backup works with. */
export interface BackupParts {
  readonly request: BackupRequest;
  readonly filterNode: BlockNode;
  readonly filter: CopyBeforeWriteDriver;
  readonly syncBitmap: SyncBitmap;
  /** Until then whoever starts the job takes everything back when it is cancelled. */
  isStarted(): boolean;
  /** Lets go of the nodes and removes the filter. */
  giveBack(): Promise<void>;
}

/**
 * The background work of a backup: copies what the filter has not copied yet, and retries by policy.
 *
 * @see spec/copy-before-write-and-backup.md sections 5.3 and 5.4
 */
export class BackupDriver implements BlockJobDriver {
  readonly #parts: BackupParts;
  #blockJob: BlockJob | undefined;
  #call: CopyCall | undefined;
  /** Whether what was copied may be lost: the target could not be flushed. */
  #isUnstable: boolean = false;

  constructor(parts: BackupParts) {
    this.#parts = parts;
  }

  async run(blockJob: BlockJob): Promise<void> {
    this.#blockJob = blockJob;
    const { job } = blockJob;
    this.#parts.filter.onSnapshotBroken = () => {
      this.#call?.cancel();
      job.kick();
    };
    if (this.#parts.request.options.sync === "none") {
      // Guest writes do all the work; the job is there to be cancelled.
      while (!(job.isCancelled || this.#isBroken)) await job.yield();
      this.#checkIntact();
      return;
    }
    if (this.#parts.request.options.sync === "top") await this.#skipUnallocated(job);
    await this.#copyAll(job);
    await this.#makeStable(job);
  }

  /** Stops the running call: when this has resolved none of its requests is in flight. */
  async pause(): Promise<void> {
    this.#call?.cancel();
    await this.#call?.done;
  }

  setSpeed(speed: number): void {
    this.#parts.filter.engine.setSpeed(speed);
    this.#call?.kick();
  }

  cancel(): boolean {
    // A target that waits for its peer would keep the cancelled job waiting.
    this.#parts.request.target.io.cancelInFlight();
    return true;
  }

  commit(): void {
    this.#parts.syncBitmap.succeed();
  }

  abort(): void {
    if (this.#parts.isStarted()) this.#parts.syncBitmap.fail(this.#remaining());
  }

  /** The nodes are given back first: a filter that is held can not be removed. */
  async clean(): Promise<void> {
    if (this.#parts.isStarted()) await this.#parts.giveBack();
  }

  /** What the backup lacks; `undefined` when that is what the bitmap said. */
  #remaining(): HBitmap | undefined {
    const remaining = this.#parts.filter.engine.remainingBitmap();
    if (!this.#isUnstable) return remaining;
    if (this.#parts.request.options.sync === "bitmap") return undefined;
    remaining.setAll();
    return remaining;
  }

  /** One pass over the source's top layer; what it does not hold is not copied. */
  async #skipUnallocated(job: JobContext): Promise<void> {
    const { engine } = this.#parts.filter;
    engine.setSkipUnallocated(true);
    const { size } = this.#parts.request.source;
    for (let offset = 0; offset < size; ) {
      await job.sleep(0);
      if (job.isCancelled) return;
      const { length } = await engine.resetUnallocated(offset);
      offset += length;
    }
    engine.setSkipUnallocated(false);
  }

  async #copyAll(job: JobContext): Promise<void> {
    const { engine } = this.#parts.filter;
    const { maxWorkers, maxChunk } = this.#parts.request;
    const length = alignUp(this.#parts.request.source.size, engine.clusterSize);
    // A cancelled job passes its pause points, in drained sections too: it starts nothing.
    while (!job.isCancelled) {
      const call = engine.start(0, length, { maxWorkers, maxChunk });
      this.#call = call;
      void call.done.then(() => job.kick());
      while (!call.finished && !job.isCancelled) await job.yield();
      if (!call.finished) {
        // The job's own waits return at once from here on, so the call is awaited directly.
        call.cancel();
        await call.done;
      }
      this.#call = undefined;
      this.#checkIntact();
      if (job.isCancelled || call.succeeded) return;
      if (call.error !== undefined && call.failed) {
        this.#applyPolicy(call.error, call.errorIsRead);
      }
      await job.sleep(0);
    }
  }

  /**
   * The backup is only worth its bits when it is stable. Nothing is copied any more once all is copied, so this is
   * part of the run, and not of the end: the copying has rested in a drained section that stood when it ended, and
   * who begins one now waits for a job that works.
   */
  async #makeStable(job: JobContext): Promise<void> {
    if (job.isCancelled) return;
    try {
      await this.#parts.filterNode.children.get("target")?.flush();
    } catch (error) {
      this.#isUnstable = true;
      throw error;
    }
  }

  get #isBroken(): boolean {
    return this.#parts.filter.snapshotError !== undefined;
  }

  /** A guest's write that could not be saved has gone through: what was copied is of no single moment. */
  #checkIntact(): void {
    const { snapshotError } = this.#parts.filter;
    if (snapshotError !== undefined) throw snapshotError;
  }

  /** Throws the error for the policy `report`; otherwise the clusters that failed are dirty and tried again. */
  #applyPolicy(error: BlockError, isRead: boolean): void {
    const { options } = this.#parts.request;
    const policy = (isRead ? options["on-source-error"] : options["on-target-error"]) ?? "report";
    if (this.#blockJob?.errorAction(policy, error, isRead) === "report") throw error;
  }
}
