import { type BlockChild, completed } from "@blocklayer/driver";
import type { Env } from "@blocklayer/env";
import { assert, BlockError } from "@blocklayer/errors";
import type { HBitmap } from "@blocklayer/hbitmap";
import { alignUp, isAligned } from "@blocklayer/offsets";
import { SliceLimiter } from "@blocklayer/rate-limit";
import { ClusterStates } from "./cluster-states.ts";
import {
  type BackgroundOptions,
  CallState,
  type CopyCall,
  outcomeOf,
  outcomeWithin,
} from "./copy-call.ts";
import { MethodChooser } from "./copy-method.ts";
import type { BlockCopyOptions, CopyOptions, CopyProgress, CopyStatus } from "./copy-options.ts";
import type { CopyTask } from "./copy-task.ts";
import { CopyTransfer } from "./copy-transfer.ts";
import { MemoryBudget } from "./memory-budget.ts";
import { allocationAt, clustersAt, type SourceRange } from "./source-status.ts";
import { TaskWindow } from "./task-window.ts";
import { WorkerPool } from "./worker-pool.ts";

/** Bytes of all running tasks of one engine. */
const MEMORY_MAX = 128 * 2 ** 20;
/** The same in simulations that want tasks to wait for it, in clusters. */
const TIGHT_CLUSTERS = 2;
/** Tasks at once of a call that a guest's write waits for. */
const GUEST_WORKERS = 64;
/** Bytes of a task until it is known whether it is zeroes, which cost nothing to copy however many there are. */
const LOOK_MAX = 64 * 2 ** 20;
/** Milliseconds of the speed limiter's slice. */
const SLICE_MS = 100;

/**
 * Copies the clusters of a source that are marked in the copy bitmap to a target, for any number of callers at
 * once.
 *
 * | state of a cluster | bit | task |
 * | --- | --- | --- |
 * | to be copied | set | none |
 * | being copied | clear | one |
 * | copied, or never wanted | clear | none |
 *
 * A bit is cleared before its copy starts and set again when the copy fails. Tasks never overlap. A call succeeds
 * only when its whole range is clear and without tasks; it fails only by an error in a task of its own: what
 * another call's task failed to copy is copied again by this one.
 *
 * @see spec/copy-before-write-and-backup.md section 3
 */
export class BlockCopy {
  readonly clusterSize: number;
  readonly #env: Env;
  readonly #source: BlockChild;
  readonly #target: BlockChild;
  readonly #states: ClusterStates;
  readonly #methods: MethodChooser;
  readonly #transfer: CopyTransfer;
  readonly #budget: MemoryBudget;
  readonly #limiter: SliceLimiter;
  readonly #window = new TaskWindow();
  readonly #onSkip: BlockCopyOptions["onSkip"];
  readonly #beforeDiscard: BlockCopyOptions["beforeDiscard"];
  #skipUnallocated: boolean = false;
  #discardSource: boolean = false;
  #progress: CopyProgress | undefined;

  /** @throws BlockError `EINVAL` `initial` has another size than the source */
  constructor(options: BlockCopyOptions) {
    const { env, source, target, clusterSize, initial } = options;
    this.#env = env;
    this.#source = source;
    this.#target = target;
    this.#onSkip = options.onSkip;
    this.#beforeDiscard = options.beforeDiscard;
    this.clusterSize = clusterSize;
    this.#states = new ClusterStates(env, source.size, clusterSize);
    this.#methods = new MethodChooser(clusterSize, [
      source.limits.maxTransfer,
      target.limits.maxTransfer,
    ]);
    this.#transfer = new CopyTransfer(source, target, {
      env,
      methods: this.#methods,
      clusterSize,
      serialising: options.serialising ?? false,
    });
    const isTight = env.buggify("tight copy memory");
    this.#budget = new MemoryBudget(env, isTight ? TIGHT_CLUSTERS * clusterSize : MEMORY_MAX);
    this.#limiter = new SliceLimiter(env.clock);
    this.restart(initial);
  }

  /** Set: has still to be copied. For reading; changed by the engine only. */
  get copyBitmap(): HBitmap {
    return this.#states.bitmap;
  }

  /** Bytes that are copied: the length that the source had at the last {@link restart}. */
  get size(): number {
    return this.#states.size;
  }

  /** Bytes of the tasks that run. */
  get inFlightBytes(): number {
    return this.#states.inFlightBytes;
  }

  /** Bytes that have still to be copied, those of running tasks included. */
  get remaining(): number {
    return this.#states.remaining;
  }

  /**
   * Returns what is not copied yet, with the clusters whose copy is under way: for somebody who has to know it
   * without waiting. What ends well later was counted once too often, never once too little.
   */
  remainingBitmap(): HBitmap {
    return this.#states.remainingBitmap();
  }

  /**
   * Begins anew, with the length that the source has now: what `initial` marks, or everything, has to be copied.
   * For the moment in which the filter is inserted, and for checkpoints; no task may run.
   *
   * @throws BlockError `EINVAL` `initial` has another size than the source
   */
  restart(initial?: HBitmap): void {
    const { size } = this.#source;
    if (initial !== undefined && initial.size !== size) {
      throw new BlockError(
        "EINVAL",
        `Bitmaps are of different sizes (destination size is ${size}, source size is ${initial.size}) and can't be merged`,
        { node: this.#source.nodeName, length: initial.size },
      );
    }
    this.#states.restart(size, initial);
    this.#updateRemaining();
  }

  /** Chooses how tasks copy. `compress` writes compressed clusters, `useCopyRange` tries to copy without buffers. */
  setOptions(options: { readonly useCopyRange: boolean; readonly compress: boolean }): void {
    this.#transfer.setCompress(options.compress);
    this.#methods.choose(options);
  }

  setProgress(progress: CopyProgress): void {
    this.#progress = progress;
    this.#updateRemaining();
  }

  /** Whether clusters that the source's top layer does not hold are left out. */
  setSkipUnallocated(skip: boolean): void {
    this.#skipUnallocated = skip;
  }

  /**
   * Whether the source is discarded where it was copied from now on; what the discards answer is ignored. Those that are
   * under way go on.
   */
  setDiscardSource(discard: boolean): void {
    this.#discardSource = discard;
  }

  /** @param speed - bytes a second, 0 for no limit. Does not end waits: kick the calls */
  setSpeed(speed: number): void {
    this.#limiter.setSpeed(speed, SLICE_MS);
  }

  /** Whether nothing of the range has to be copied or is being copied. Both ends whole clusters or beyond the end. */
  isClean(offset: number, length: number): boolean {
    return this.#states.isClean(offset, length);
  }

  /** Whether the source is being discarded in the range; need not be aligned. */
  isDiscarding(offset: number, length: number): boolean {
    return this.#states.tasks.findDiscarding(offset, length) !== undefined;
  }

  /** Resolves when the source is not being discarded in the range: for a writer who does not wait for copies. */
  async discardsGone(offset: number, length: number): Promise<void> {
    const { tasks } = this.#states;
    let task = tasks.findDiscarding(offset, length);
    while (task !== undefined) {
      await tasks.changed(task);
      task = tasks.findDiscarding(offset, length);
    }
  }

  /**
   * Returns whether the byte at `offset` has neither to be copied nor is being copied, and how many bytes from there
   * are the same. Where `clean` and the cluster was not skipped, the target holds what the source held; the source may
   * be about to be discarded there, so it is not {@link isClean} for writers yet.
   *
   * @param offset - bytes; need not be aligned
   * @param length - bytes, 1 or more, inside the source
   */
  status(offset: number, length: number): CopyStatus {
    return this.#states.status(offset, length);
  }

  /**
   * Copies what is dirty in the range, for somebody who waits for it.
   *
   * @param offset - bytes, a multiple of the cluster size
   * @param length - bytes, a multiple of the cluster size; may end beyond the source by less than a cluster
   * @returns `completed` when there is nothing to do
   * @throws BlockError `ETIMEDOUT` the time is over: tasks that run go on until they end, and hold what they
   *   copy; else the first error of one of its own tasks, whose clusters are dirty again
   */
  copy(offset: number, length: number, options: CopyOptions = {}): Promise<void> {
    this.#checkRange(offset, length);
    if (this.isClean(offset, length)) {
      options.onEnd?.();
      return completed;
    }
    const call = new CallState(offset, length, {
      maxWorkers: GUEST_WORKERS,
      maxChunk: 0,
      ignoreRateLimit: options.ignoreRateLimit ?? false,
      isBackground: false,
    });
    call.done = this.#run(call).finally(() => options.onEnd?.());
    const timeoutMs = options.timeoutMs ?? 0;
    return timeoutMs === 0
      ? outcomeOf(call)
      : outcomeWithin(call, this.#env, timeoutMs, this.#target.nodeName);
  }

  /** Copies what is dirty in the range in the background. The conditions of {@link copy} hold. */
  start(offset: number, length: number, options: BackgroundOptions): CopyCall {
    this.#checkRange(offset, length);
    const call = new CallState(offset, length, {
      ...options,
      ignoreRateLimit: false,
      isBackground: true,
    });
    call.done = this.#run(call);
    return call;
  }

  /**
   * Marks a range as not wanted: what of it was to be copied is not. What was copied, or is just being copied, stays
   * so. The range is made of whole clusters.
   */
  reset(offset: number, length: number): void {
    this.#checkRange(offset, length);
    const { bitmap } = this.#states;
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const area = bitmap.nextDirtyArea(at, end);
      if (area === undefined) break;
      this.#states.clear(area.offset, area.length);
      this.#onSkip?.(area.offset, area.length);
      at = area.offset + area.length;
    }
    this.#updateRemaining();
  }

  /**
   * Looks at the run of clusters at `offset` and marks it as not wanted if the source's top layer holds nothing
   * of it.
   *
   * @returns the run, in whole clusters
   * @see spec/copy-before-write-and-backup.md section 3.6
   */
  async resetUnallocated(
    offset: number,
  ): Promise<{ readonly allocated: boolean; readonly length: number }> {
    const run = await allocationAt(this.#rangeAt(offset));
    if (!run.allocated) this.reset(offset, run.length);
    return run;
  }

  /** Resolves when no task runs. New ones may start as soon as it does. */
  async whenIdle(): Promise<void> {
    const { tasks } = this.#states;
    for (let task = tasks.any(); task !== undefined; task = tasks.any()) await tasks.changed(task);
  }

  /** Repeats until the whole range is clean and idle, or one of the call's own tasks failed. Never rejects. */
  async #run(call: CallState): Promise<void> {
    const { tasks, bitmap } = this.#states;
    try {
      for (;;) {
        const found = await this.#copyDirty(call);
        if (call.isStopping) return;
        if (found) continue;
        const task = tasks.find(call.offset, call.length);
        if (task !== undefined) await tasks.changed(task);
        else if (bitmap.nextDirty(call.offset, call.length) < 0) return;
      }
    } catch (error) {
      call.fail(error, false);
    } finally {
      call.finished = true;
    }
  }

  /** Copies what is dirty once; returns whether anything was. */
  async #copyDirty(call: CallState): Promise<boolean> {
    const pool = new WorkerPool(() =>
      call.isBackground ? Math.min(call.maxWorkers, this.#window.size) : call.maxWorkers,
    );
    try {
      return await this.#startTasks(call, pool);
    } finally {
      await pool.finished();
    }
  }

  async #startTasks(call: CallState, pool: WorkerPool): Promise<boolean> {
    const end = call.offset + call.length;
    let found = false;
    let position = call.offset;
    while (position < end && !call.isStopping) {
      const task = this.#createTask(call, position, end);
      if (task === undefined) break;
      found = true;
      const isWanted = await this.#look(call, task);
      position = task.end;
      if (!isWanted) continue;
      // In one turn with going to sleep, so that a kick in between is not lost.
      const delayMs = call.ignoreRateLimit ? 0 : this.#limiter.delay(0);
      if (delayMs > 0) {
        this.#endTask(task, false);
        position = task.offset;
        await call.sleep(this.#env, delayMs);
        continue;
      }
      this.#limiter.delay(task.length);
      await this.#budget.acquire(task.memory);
      await pool.start(() => this.#perform(call, task));
      // A copy between two page caches never waits: without this the guest would not get a turn.
      if (call.isBackground) await this.#env.clock.sleep(0);
    }
    return found;
  }

  /** Takes the next dirty clusters out of the bitmap and lists them as a task. */
  #createTask(call: CallState, position: number, end: number): CopyTask | undefined {
    const look = call.maxChunk === 0 ? LOOK_MAX : Math.min(LOOK_MAX, call.maxChunk);
    const max = Math.max(this.#chunkOf(call), look);
    return this.#states.take(position, end, max, this.#methods.method);
  }

  /** Bytes of data that one task of the call copies, whole clusters. */
  #chunkOf(call: CallState): number {
    const chunk = this.#methods.chunkSize;
    const max = call.maxChunk === 0 ? chunk : Math.min(chunk, call.maxChunk);
    return alignUp(max, this.clusterSize);
  }

  /** Finds out what the task has to copy; one that has nothing to copy has ended when this returns `false`. */
  async #look(call: CallState, task: CopyTask): Promise<boolean> {
    const topOnly = this.#skipUnallocated;
    const run = await clustersAt(this.#rangeAt(task.offset), task.length, topOnly);
    const isSkipped = topOnly && !run.allocated;
    const isData = !(run.zero || isSkipped);
    this.#states.shrink(task, isData ? Math.min(run.length, this.#chunkOf(call)) : run.length);
    task.isZero = run.zero;
    if (!isSkipped) return true;
    this.#onSkip?.(task.offset, task.length);
    this.#endTask(task, true);
    return false;
  }

  #rangeAt(offset: number): SourceRange {
    return { source: this.#source, size: this.size, clusterSize: this.clusterSize, offset };
  }

  /** Copies the task's bytes and ends it; never rejects. */
  async #perform(call: CallState, task: CopyTask): Promise<void> {
    const length = this.#states.inside(task.offset, task.length);
    try {
      // The call was cancelled, or failed, while the task waited for its memory.
      if (call.isStopping) return;
      const startMs = this.#env.clock.now();
      await this.#transfer.run(task, length);
      task.isCopied = true;
      if (call.isBackground && !task.isZero) {
        this.#window.learn(this.#env.clock.now() - startMs, call.maxWorkers);
      }
      this.#progress?.workDone(task.length);
      if (this.#discardSource) await this.#discard(task, length);
    } catch (error) {
      call.fail(error, task.isReading);
    } finally {
      this.#budget.release(task.memory);
      this.#endTask(task, task.isCopied);
    }
  }

  /** Frees the source where it was copied, when nobody reads it there any more, if that is wanted still. */
  async #discard(task: CopyTask, length: number): Promise<void> {
    await this.#beforeDiscard?.(task.offset, length);
    // From here on to the request must not await: who does not see the flag writes before it.
    if (!this.#discardSource) return;
    task.isDiscarding = true;
    await this.#transfer.discard(task.offset, length);
  }

  #endTask(task: CopyTask, isDone: boolean): void {
    this.#states.end(task, isDone);
    this.#updateRemaining();
  }

  #updateRemaining(): void {
    this.#progress?.setRemaining(this.remaining);
  }

  #checkRange(offset: number, length: number): void {
    const { clusterSize } = this;
    assert(
      isAligned(offset, clusterSize) &&
        isAligned(length, clusterSize) &&
        offset + length <= alignUp(this.size, clusterSize),
      () =>
        `copy of [${offset}, +${length}) is not made of clusters of ${clusterSize} bytes inside ${this.size}`,
    );
  }
}
