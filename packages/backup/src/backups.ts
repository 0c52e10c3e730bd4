import { asCopyBeforeWrite, type CopyBeforeWriteDriver } from "@blocklayer/backup-top";
import type {
  BlockNode,
  DrainHold,
  Graph,
  GraphStep,
  OperationBlock,
} from "@blocklayer/block-graph";
import { type BlockJob, BlockJobs } from "@blocklayer/block-job";
import type { BitmapManager } from "@blocklayer/dirty-bitmap";
import { ALL_PERMISSIONS } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import type { Job, JobManager, JobTransaction, TransactionStep } from "@blocklayer/jobs";
import { BackupDriver } from "./backup-driver.ts";
import { BackupJob } from "./backup-job.ts";
import {
  type BackupOptions,
  type BackupRequest,
  checkBackup,
  checkSizes,
  refused,
} from "./backup-options.ts";
import { checkRoom } from "./check-room.ts";
import { SyncBitmap } from "./sync-bitmap.ts";

export interface BackupsOptions {
  /** Has the `copy-before-write` driver of `backup-top` registered. */
  readonly graph: Graph;
  readonly jobs: JobManager;
  readonly bitmaps: BitmapManager;
  /** Where the jobs are listed. Default: a list of its own. */
  readonly blockJobs?: BlockJobs;
}

export interface StartAllOptions {
  /** Whether the jobs succeed or fail together. Default `false`. */
  readonly grouped?: boolean;
  /**
   * Steps that happen in the instant of the start: bitmaps that are added or cleared, say. They are prepared, applied and
   * committed before those of the backups, but when the filters stand above the sources already: steps that move edges
   * find them there. What one of them reports when all is committed refuses nothing: it is a line in the graph's log.
   */
  readonly steps?: readonly (GraphStep | TransactionStep)[];
}

/**
 * Starts backups: consistent copies of running disks, each as of the instant in which it was started.
 *
 * @see spec/copy-before-write-and-backup.md section 5
 */
export class Backups {
  readonly #given: Required<BackupsOptions>;

  constructor(options: BackupsOptions) {
    this.#given = { blockJobs: new BlockJobs(options), ...options };
  }

  /**
   * Starts one backup; resolves when its job runs.
   *
   * @throws BlockError why it was refused: nothing was changed
   */
  async start(options: BackupOptions): Promise<BackupJob> {
    const [job] = await this.startAll([options]);
    if (job === undefined) throw refused("no backup was started", options);
    return job;
  }

  /**
   * Starts several backups that see the same instant: all or none of them.
   *
   * What a step throws behind the commit (in its `commit` or `clean`) is a line in the graph's log: the jobs run.
   *
   * @throws BlockError why one of them was refused: nothing was changed
   */
  async startAll(
    list: readonly BackupOptions[],
    { grouped = false, steps = [] }: StartAllOptions = {},
  ): Promise<BackupJob[]> {
    const starts: BackupStart[] = [];
    const transaction = grouped ? this.#given.jobs.transaction() : undefined;
    const checkJobs = (): void => {
      for (const start of starts) start.checkJob();
    };
    try {
      for (const options of list) {
        const request = checkBackup(this.#given.graph, this.#given.bitmaps, options);
        const start = new BackupStart(this.#given, request);
        starts.push(start);
        await checkRoom(request);
        await start.open();
        // A job can not join a transaction in which another one was cancelled.
        checkJobs();
        await start.createJob(transaction);
      }
      // The sources stay drained until the jobs run, so that nothing can come between.
      for (const start of starts) await start.drain();
      const { graph } = this.#given;
      await graph.change(starts.map((start) => start.insertStep()));
      // What can fail comes first: the steps of others must not happen without the backups.
      for (const start of starts) await start.hold();
      await graph.change([...steps, ...starts.map((start) => start.startStep())]);
    } catch (error) {
      // All starts commit in one turn, with the steps of others.
      if (!starts.some((start) => start.isStarted)) {
        for (const start of starts.toReversed()) await start.undo();
        throw error;
      }
      // What could not be finished behind that is no reason to take anything back.
      this.#given.graph.core.log(`backup: started: ${String(error)}`);
    }
    // Nothing is refused any more: who cancels a job now cancels one that was started.
    const jobs = starts.map((start) => start.backupJob());
    // The filters save what guests overwrite already, whether the jobs have come to their work or not.
    for (const start of starts) start.undrain();
    return jobs;
  }
}

/** One backup on its way to be started, with what has to be undone if it does not get there. */
class BackupStart {
  readonly #given: Required<BackupsOptions>;
  readonly #request: BackupRequest;
  readonly #bitmap: SyncBitmap;
  #filterNode: BlockNode | undefined;
  #blockJob: BlockJob | undefined;
  #drained: DrainHold | undefined;
  /** Keeps others off the target until the job does. */
  #reservation: OperationBlock | undefined;
  #isInserted: boolean = false;
  #isStarted: boolean = false;

  /** Whether the change that starts it was committed: nothing is taken back any more. */
  get isStarted(): boolean {
    return this.#isStarted;
  }

  /** Reserves the target, in the turn in which it was checked. */
  constructor(given: Required<BackupsOptions>, request: BackupRequest) {
    this.#given = given;
    this.#request = request;
    this.#bitmap = new SyncBitmap(request.bitmap, request.bitmapMode);
    this.#reservation = request.target.blockAllOperations(
      "block device is in use by block job: backup",
    );
  }

  /** Opens the filter beside the source. Guests notice nothing of it. */
  async open(): Promise<void> {
    const { graph } = this.#given;
    const { options, maxChunk, source, target } = this.#request;
    const name = options["filter-node-name"];
    this.#filterNode = await graph.open({
      driver: "copy-before-write",
      // What guests discard goes on to reach the disk as it did without the filter.
      discard: source.options.discard,
      ...(name === undefined ? {} : { "node-name": name }),
      file: source.name,
      target: target.name,
      "on-cbw-error": options["on-cbw-error"] ?? "break-guest-write",
      "cbw-timeout": options["cbw-timeout"] ?? 0,
      "min-cluster-size": options["x-perf"]?.["min-cluster-size"] ?? 0,
      "x-blocklayer-discard-source": options["discard-source"] ?? false,
    });
    const filter = this.#filter;
    const { clusterSize } = filter.engine;
    if (maxChunk !== 0 && maxChunk < clusterSize) {
      throw refused(
        `Required max-chunk (${maxChunk}) is less than backup cluster size (${clusterSize})`,
        options,
        { maxChunk, clusterSize },
      );
    }
    filter.engine.setOptions({
      useCopyRange: options["x-perf"]?.["use-copy-range"] ?? false,
      compress: options.compress ?? false,
    });
  }

  /** Makes the job. From here on its users can find it, and cancel it. */
  async createJob(transaction: JobTransaction | undefined): Promise<void> {
    const { options } = this.#request;
    const filter = this.#filter;
    const driver = new BackupDriver({
      request: this.#request,
      filterNode: this.#node,
      filter,
      syncBitmap: this.#bitmap,
      isStarted: () => this.#isStarted,
      giveBack: () => this.#giveBack(),
    });
    this.#blockJob = await this.#given.blockJobs.create({
      type: "backup",
      driver,
      mainNode: this.#request.source,
      ...(options["job-id"] === undefined ? {} : { id: options["job-id"] }),
      ...(options.speed === undefined ? {} : { speed: options.speed }),
      ...(options["auto-finalize"] === undefined ? {} : { autoFinalize: options["auto-finalize"] }),
      ...(options["auto-dismiss"] === undefined ? {} : { autoDismiss: options["auto-dismiss"] }),
      ...(transaction === undefined ? {} : { transaction }),
    });
    filter.engine.setProgress(this.#blockJob.job.progress);
  }

  /** @throws BlockError `ECANCELED` somebody has cancelled the job already */
  checkJob(): void {
    const job = this.#job;
    if (job === undefined || job.status === "created") return;
    const { source } = this.#request;
    throw new BlockError("ECANCELED", "The backup was cancelled before it was started", {
      node: source.name,
      operation: "backup",
      job: job.id,
    });
  }

  async drain(): Promise<void> {
    this.#drained = await this.#request.source.drain();
  }

  /** Puts the filter above the source, which is drained until the job is started. */
  insertStep(): GraphStep {
    return {
      name: "insert filter",
      touches: [this.#request.source, this.#node],
      prepare: () => undefined,
      apply: () => this.#insert(),
      commit: () => {
        this.#isInserted = true;
      },
    };
  }

  /** Freezes the bitmap, fixes the point in time and starts the job, in one turn. The job rests at once. */
  startStep(): GraphStep {
    return {
      name: "start backup",
      touches: [this.#request.source, this.#node],
      prepare: () => undefined,
      apply: () => this.#freeze(),
      commit: () => {
        const { sync } = this.#request.options;
        const initial = sync === "bitmap" || sync === "incremental" ? this.#bitmap.map : undefined;
        this.#isStarted = true;
        this.#filter.begin(initial === undefined ? {} : { initial });
        this.#job?.start();
      },
    };
  }

  /** Lets the job hold its nodes: drained sections pause it, other jobs keep off. */
  async hold(): Promise<void> {
    const permissions = { perm: 0, shared: ALL_PERMISSIONS };
    await this.#blockJob?.addNode("main node", this.#node, permissions);
    await this.#blockJob?.addNode("target", this.#request.target, permissions);
    this.#release();
  }

  backupJob(): BackupJob {
    const { sync } = this.#request.options;
    return new BackupJob(this.#blockJob as BlockJob, this.#node, this.#filter, sync);
  }

  undrain(): void {
    this.#drained?.end();
  }

  /** Takes everything back: bitmap, job, filter, drained section. What one of them reports keeps none of the others. */
  async undo(): Promise<void> {
    const log = (error: unknown): void => this.#log(error);
    this.#bitmap.thaw();
    this.#release();
    await this.#endJob().catch(log);
    await this.#giveBack().catch(log);
    this.undrain();
  }

  async #endJob(): Promise<void> {
    const blockJob = this.#blockJob;
    if (blockJob?.job.status === "created") await blockJob.failEarly();
    else await blockJob?.job.cancelAndWait({ force: true });
  }

  /** Nobody else has to be kept off any more. */
  #release(): void {
    this.#reservation?.release();
    this.#reservation = undefined;
  }

  #log(error: unknown): void {
    this.#given.graph.core.log(`backup: ${String(error)}`);
  }

  #insert(): (() => void) | undefined {
    const { source, target } = this.#request;
    // Much may have happened since the check.
    checkSizes(this.#request.options, source, target);
    // Another step of the change may have put its filter above the source: then this one goes above that.
    const below = this.#node.filterChild?.node ?? source;
    return this.#given.graph.replaceNode(below, this.#node).apply?.();
  }

  #freeze(): () => void {
    this.checkJob();
    this.#bitmap.freeze();
    return () => this.#bitmap.thaw();
  }

  /** Lets go of the nodes and removes the filter. @throws the first error; all is tried in any case */
  async #giveBack(): Promise<void> {
    const { graph } = this.#given;
    const faults: unknown[] = [];
    const note = (error: unknown): void => void faults.push(error);
    await this.#blockJob?.removeAllNodes().catch(note);
    const node = this.#filterNode;
    this.#filterNode = undefined;
    if (node !== undefined) {
      if (this.#isInserted) {
        await graph.change([graph.dropFilter(node), disownStep(node)]).catch(note);
      }
      if (node.isOwned) await graph.remove(node.name).catch(note);
    }
    if (faults.length > 0) throw faults[0];
  }

  get #job(): Job | undefined {
    return this.#blockJob?.job;
  }

  get #node(): BlockNode {
    return this.#filterNode as BlockNode;
  }

  get #filter(): CopyBeforeWriteDriver {
    return asCopyBeforeWrite(this.#node);
  }
}

/**
 * Gives a node up in the very turn in which it is taken out: as long as it has a name somebody may come to use it, and
 * who does so later keeps it to himself.
 */
function disownStep(node: BlockNode): TransactionStep {
  return {
    name: "disown",
    prepare: () => undefined,
    commit: () => {
      node.isOwned = false;
    },
  };
}
