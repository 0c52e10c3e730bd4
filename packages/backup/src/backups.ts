import { asCopyBeforeWrite, type CopyBeforeWriteDriver } from "@blocklayer/backup-top";
import type { BlockNode, DrainHold, Graph, GraphStep } from "@blocklayer/block-graph";
import { type BlockJob, BlockJobs } from "@blocklayer/block-job";
import type { BitmapManager } from "@blocklayer/dirty-bitmap";
import { ALL_PERMISSIONS } from "@blocklayer/driver";
import type { JobManager, JobTransaction, TransactionStep } from "@blocklayer/jobs";
import { BackupDriver } from "./backup-driver.ts";
import { BackupJob } from "./backup-job.ts";
import { type BackupOptions, type BackupRequest, checkBackup, refused } from "./backup-options.ts";
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
  /** Steps that happen in the same instant: bitmaps that are added or cleared, say. They come first. */
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
   * @throws BlockError why one of them was refused: nothing was changed
   */
  async startAll(
    list: readonly BackupOptions[],
    { grouped = false, steps = [] }: StartAllOptions = {},
  ): Promise<BackupJob[]> {
    const starts: BackupStart[] = [];
    const transaction = grouped ? this.#given.jobs.transaction() : undefined;
    try {
      for (const options of list) {
        const request = checkBackup(this.#given.graph, this.#given.bitmaps, options);
        const start = new BackupStart(this.#given, request);
        starts.push(start);
        await start.open(transaction);
      }
      // The sources stay drained until the jobs hold their nodes, so that nothing can come between.
      for (const start of starts) await start.drain();
      await this.#given.graph.change([...steps, ...starts.map((start) => start.step())]);
      for (const start of starts) await start.hold();
    } catch (error) {
      for (const start of starts.toReversed()) await start.undo();
      throw error;
    }
    const jobs = starts.map((start) => start.start());
    // Jobs that start in a drained section rest at once; the guests go on when all of them do.
    for (const { job } of jobs) await job.quiescent();
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
  #isInserted: boolean = false;
  #isGivenBack: boolean = false;

  constructor(given: Required<BackupsOptions>, request: BackupRequest) {
    this.#given = given;
    this.#request = request;
    this.#bitmap = new SyncBitmap(request.bitmap, request.bitmapMode);
  }

  /** Opens the filter beside the source, and makes the job. Guests notice nothing of it. */
  async open(transaction: JobTransaction | undefined): Promise<void> {
    const { graph, blockJobs } = this.#given;
    const { options, maxChunk } = this.#request;
    const name = options["filter-node-name"];
    this.#filterNode = await graph.open({
      driver: "copy-before-write",
      ...(name === undefined ? {} : { "node-name": name }),
      file: options.device,
      target: options.target,
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
    const driver = new BackupDriver({
      request: this.#request,
      filterNode: this.#node,
      filter,
      syncBitmap: this.#bitmap,
      giveBack: () => this.#giveBack(),
    });
    this.#blockJob = await blockJobs.create({
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

  async drain(): Promise<void> {
    this.#drained = await this.#request.source.drain();
  }

  /** Puts the filter above the source, freezes the bitmap and fixes the point in time, in one turn. */
  step(): GraphStep {
    const { graph } = this.#given;
    const filterNode = this.#node;
    return {
      name: "start backup",
      touches: [this.#request.source, filterNode],
      prepare: () => undefined,
      apply: () => {
        this.#bitmap.check();
        // Another step of the change may have put its filter above the source: then this one goes above that.
        const below = filterNode.filterChild?.node ?? this.#request.source;
        return graph.replaceNode(below, filterNode).apply?.();
      },
      commit: () => {
        this.#isInserted = true;
        this.#bitmap.freeze();
        const { sync } = this.#request.options;
        const initial = sync === "bitmap" || sync === "incremental" ? this.#bitmap.map : undefined;
        this.#filter.begin(initial === undefined ? {} : { initial });
      },
    };
  }

  /** Lets the job hold its nodes: drained sections pause it, other jobs keep off. */
  async hold(): Promise<void> {
    const permissions = { perm: 0, shared: ALL_PERMISSIONS };
    await this.#blockJob?.addNode("main node", this.#node, permissions);
    await this.#blockJob?.addNode("target", this.#request.target, permissions);
  }

  start(): BackupJob {
    const blockJob = this.#blockJob as BlockJob;
    blockJob.job.start();
    return new BackupJob(blockJob, this.#node, this.#filter, this.#request.options.sync);
  }

  undrain(): void {
    this.#drained?.end();
  }

  /** Takes everything back: bitmap, job, filter, drained section. */
  async undo(): Promise<void> {
    this.#bitmap.thaw();
    await this.#blockJob?.failEarly();
    await this.#giveBack();
    this.undrain();
  }

  /** Lets go of the nodes and removes the filter, once. */
  async #giveBack(): Promise<void> {
    const { graph } = this.#given;
    await this.#blockJob?.removeAllNodes();
    if (this.#filterNode === undefined || this.#isGivenBack) return;
    this.#isGivenBack = true;
    if (this.#isInserted) await graph.change([graph.dropFilter(this.#filterNode)]);
    await graph.remove(this.#filterNode.name);
  }

  get #node(): BlockNode {
    return this.#filterNode as BlockNode;
  }

  get #filter(): CopyBeforeWriteDriver {
    return asCopyBeforeWrite(this.#node);
  }
}
