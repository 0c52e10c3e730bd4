import { BlockCopy } from "@blocklayer/block-copy";
import type { BlockNode } from "@blocklayer/block-graph";
import {
  type BlockChild,
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  type CheckOptions,
  type CheckResult,
  type ChildPermissionsInput,
  type DriverFlags,
  type ImageInfo,
  type NodeHost,
  type PermissionSet,
  type PreparedReopen,
  type ReopenChange,
  RequestFlag,
  type RequestOptions,
  rejected,
  StatusFlag,
  type StatusOptions,
} from "@blocklayer/driver";
import type { Env } from "@blocklayer/env";
import { BlockError, toBlockError } from "@blocklayer/errors";
import type { HBitmap } from "@blocklayer/hbitmap";
import { alignDown, alignUp } from "@blocklayer/offsets";
import type { CopyBeforeWriteOptions } from "./copy-before-write.ts";
import { DelayHistogram } from "./delay-histogram.ts";
import { filterFlags } from "./filter-flags.ts";
import { sourcePermissions, targetPermissions } from "./filter-permissions.ts";
import { orAborted } from "./or-aborted.ts";
import type { SnapshotReadOptions, SnapshotSource } from "./snapshot-source.ts";
import { SnapshotView } from "./snapshot-view.ts";

/** What the filter is made of; all of it is decided at open. */
export interface CopyBeforeWriteParts {
  readonly host: Pick<NodeHost, "nodeName" | "holdInFlight">;
  readonly env: Env;
  readonly source: BlockChild;
  readonly target: BlockChild;
  readonly options: CopyBeforeWriteOptions;
  readonly clusterSize: number;
  /** The target's backing chain contains the source: copies overlap with no other request to the target. */
  readonly serialising: boolean;
  /** What is copied and shown; everything by default. */
  readonly initial?: HBitmap | undefined;
}

/**
 * Saves to the target what a write is about to overwrite, so that the disk as it was at a point in time stays
 * readable: from the target where it was saved, from the source where it was not overwritten.
 *
 * | request | here |
 * | --- | --- |
 * | read, block status | the source's |
 * | write, write-zeroes, offloaded copy to here | the clusters it touches are copied first |
 * | the same flagged write-unchanged | the source's |
 * | discard | as a write; never exempt |
 * | flush | flushes the source alone |
 * | truncate | `ENOTSUP` |
 *
 * | copying ends with | `break-guest-write` | `break-snapshot` |
 * | --- | --- | --- |
 * | success | reads of the snapshot from the source that overlap end, then the write goes on | the same |
 * | an error, or `ETIMEDOUT` | the write fails with it; the source is untouched, the snapshot valid | the snapshot is broken for good, the write goes on, nothing is copied any more |
 *
 * A write whose clusters are clean is the source's own promise: nothing is allocated and nothing awaited.
 *
 * @see spec/copy-before-write-and-backup.md section 4
 */
export class CopyBeforeWriteDriver implements BlockDriver, SnapshotSource {
  readonly driverName: string = "copy-before-write";
  /** Copies, for writes that wait and for a job in the background. */
  readonly engine: BlockCopy;
  /** Where it is saved to. */
  readonly target: BlockChild;
  /** How long guest writes were delayed by copying and by frozen reads. */
  readonly writeDelay: DelayHistogram = new DelayHistogram();
  /** Called once, when the snapshot breaks: a job that copies it ends with this error. */
  onSnapshotBroken: ((error: BlockError) => void) | undefined;
  readonly #host: CopyBeforeWriteParts["host"];
  readonly #env: Env;
  readonly #source: BlockChild;
  readonly #options: CopyBeforeWriteOptions;
  readonly #timeoutMs: number;
  readonly #clusterSize: number;
  readonly #view: SnapshotView;
  #flags: DriverFlags = { read: 0, write: 0, zeroes: 0, truncateZero: false };

  /** @throws BlockError `EINVAL` the bitmap has another size than the source */
  constructor(parts: CopyBeforeWriteParts) {
    const { host, env, source, target, options, clusterSize } = parts;
    this.#host = host;
    this.#env = env;
    this.#source = source;
    this.target = target;
    this.#options = options;
    this.#timeoutMs = options["cbw-timeout"] * 1000;
    this.#clusterSize = clusterSize;
    this.engine = new BlockCopy({
      env,
      source,
      target,
      clusterSize,
      serialising: parts.serialising,
      onSkip: (offset, length) => this.#view.hide(offset, length),
      beforeDiscard: (offset, length) => this.#view.readersGone(offset, length),
      ...(parts.initial === undefined ? {} : { initial: parts.initial }),
    });
    this.engine.setDiscardSource(options["x-blocklayer-discard-source"]);
    const { engine } = this;
    this.#view = new SnapshotView({ env, node: host.nodeName, engine, source, target });
  }

  get size(): number {
    return this.#source.size;
  }

  /** Those of the source: the target's concern the copies alone. */
  get limits(): Partial<BlockLimits> {
    const { maxTransfer, optTransfer, pdiscardAlignment } = this.#source.limits;
    return { maxTransfer, optTransfer, pdiscardAlignment };
  }

  /** The same object as long as the source's flags are the same. */
  get flags(): DriverFlags {
    this.#flags = filterFlags(this.#source.flags, this.#flags);
    return this.#flags;
  }

  get zeroes(): BlockDriver["zeroes"] {
    // The source's node emulates when it must.
    return this.#source.zeroes === "none" ? "none" : "native";
  }

  /** Why the snapshot is broken, `undefined` while it is not. */
  get snapshotError(): BlockError | undefined {
    return this.#view.error;
  }

  /**
   * Makes this very moment the point in time: everything, or what `initial` marks, is to be copied and may be
   * read; an earlier error and the delays counted so far are forgotten.
   *
   * Synchronous, for the commit of the change that inserts the filter: nothing may be in flight here.
   *
   * @throws BlockError `EINVAL` `initial` has another size than the source
   */
  begin({ initial }: { readonly initial?: HBitmap | undefined } = {}): void {
    this.engine.restart(initial);
    this.engine.setDiscardSource(this.#options["x-blocklayer-discard-source"]);
    this.#view.begin();
    this.writeDelay.clear();
  }

  pread(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    return this.#source.pread(offset, buffer, options);
  }

  pwrite(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    if (this.#mayGoOn(offset, buffer.length, options)) {
      return this.#source.pwrite(offset, buffer, options);
    }
    return this.#pwriteLater(offset, buffer, options);
  }

  pwritev(offset: number, buffers: readonly Uint8Array[], options?: RequestOptions): Promise<void> {
    let length = 0;
    for (let index = 0; index < buffers.length; index += 1) length += buffers[index]?.length ?? 0;
    if (this.#mayGoOn(offset, length, options)) {
      return this.#source.pwritev(offset, buffers, options);
    }
    return this.#pwritevLater(offset, length, buffers, options);
  }

  pwriteZeroes(offset: number, length: number, options?: RequestOptions): Promise<void> {
    if (this.#mayGoOn(offset, length, options)) {
      return this.#source.pwriteZeroes(offset, length, options);
    }
    return this.#pwriteZeroesLater(offset, length, options);
  }

  pdiscard(offset: number, length: number, options?: RequestOptions): Promise<void> {
    if (this.#mayGoOn(offset, length, undefined)) {
      return this.#source.pdiscard(offset, length, options);
    }
    return this.#pdiscardLater(offset, length, options);
  }

  /** Complete: the target is whose who needs it, not the guest's. */
  flush(options?: RequestOptions): Promise<void> {
    return this.#source.flush(options);
  }

  blockStatus(offset: number, length: number): Promise<BlockStatus> {
    const flags = StatusFlag.raw | StatusFlag.offsetValid;
    return Promise.resolve({ flags, length, offset, child: this.#source });
  }

  /** Refused: the snapshot has one length. */
  truncate(size: number): Promise<void> {
    return rejected(
      new BlockError("ENOTSUP", "a disk that is copied before it is written cannot be resized", {
        node: this.#host.nodeName,
        operation: "truncate",
        size,
      }),
    );
  }

  copyRangeFrom(
    offset: number,
    target: BlockChild,
    targetOffset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    return this.#source.copyRangeFrom(offset, target, targetOffset, length, options);
  }

  copyRangeTo(
    source: BlockDriver,
    sourceOffset: number,
    offset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    if (this.#mayGoOn(offset, length, options)) {
      return this.#source.copyRangeTo(source, sourceOffset, offset, length, options);
    }
    return this.#copyRangeToLater(source, sourceOffset, offset, length, options);
  }

  getInfo(): Promise<ImageInfo> {
    return this.#source.getInfo();
  }

  allocatedSize(): Promise<number | undefined> {
    return this.#source.allocatedSize();
  }

  check(options?: CheckOptions): Promise<CheckResult> {
    return this.#source.check(options);
  }

  snapshotRead(offset: number, buffer: Uint8Array, options?: SnapshotReadOptions): Promise<void> {
    return this.#view.snapshotRead(offset, buffer, options);
  }

  snapshotStatus(offset: number, length: number, options?: StatusOptions): Promise<BlockStatus> {
    return this.#view.snapshotStatus(offset, length, options);
  }

  snapshotDiscard(offset: number, length: number): Promise<void> {
    return this.#view.snapshotDiscard(offset, length);
  }

  childPermissions(
    child: Pick<BlockChild, "name" | "role">,
    input: ChildPermissionsInput,
  ): PermissionSet {
    return child.name === "target"
      ? targetPermissions(input)
      : sourcePermissions(input, this.#options["x-blocklayer-discard-source"]);
  }

  /** Accepts the options it has. @throws BlockError `EINVAL` (rejects) one of them would change */
  prepareReopen({ options }: ReopenChange): Promise<PreparedReopen> {
    const before: Readonly<Record<string, unknown>> = { ...this.#options };
    const after = options as Readonly<Record<string, unknown>>;
    for (const name of new Set([...Object.keys(before), ...Object.keys(after)])) {
      if (JSON.stringify(before[name]) === JSON.stringify(after[name])) continue;
      const context = { node: this.#host.nodeName, parameter: name };
      return rejected(new BlockError("EINVAL", `Cannot change the option '${name}'`, context));
    }
    return Promise.resolve({ commit: () => undefined, abort: () => undefined });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Whether a change of the range overwrites nothing that is still needed. Counts it if so. */
  #mayGoOn(offset: number, length: number, options: RequestOptions | undefined): boolean {
    if (options !== undefined && ((options.flags ?? 0) & RequestFlag.writeUnchanged) !== 0) {
      return true;
    }
    const view = this.#view;
    if (view.isFrozen(offset, length)) return false;
    const { engine } = this;
    if (view.error !== undefined) {
      // Nothing is saved any more, but a discard that is under way would take the write along.
      if (engine.isDiscarding(offset, length)) return false;
    } else {
      // What was not there at the point in time need not be kept.
      const end = Math.min(offset + length, engine.size);
      if (offset < end) {
        const start = alignDown(offset, this.#clusterSize);
        if (!engine.isClean(start, end - start)) return false;
      }
    }
    this.writeDelay.recordUndelayed();
    return true;
  }

  async #pwriteLater(
    offset: number,
    buffer: Uint8Array,
    options: RequestOptions | undefined,
  ): Promise<void> {
    await this.#preserve(offset, buffer.length, options?.signal);
    return this.#source.pwrite(offset, buffer, options);
  }

  async #pwritevLater(
    offset: number,
    length: number,
    buffers: readonly Uint8Array[],
    options: RequestOptions | undefined,
  ): Promise<void> {
    await this.#preserve(offset, length, options?.signal);
    return this.#source.pwritev(offset, buffers, options);
  }

  async #pwriteZeroesLater(
    offset: number,
    length: number,
    options: RequestOptions | undefined,
  ): Promise<void> {
    await this.#preserve(offset, length, options?.signal);
    return this.#source.pwriteZeroes(offset, length, options);
  }

  async #pdiscardLater(
    offset: number,
    length: number,
    options: RequestOptions | undefined,
  ): Promise<void> {
    await this.#preserve(offset, length, options?.signal);
    return this.#source.pdiscard(offset, length, options);
  }

  async #copyRangeToLater(
    source: BlockDriver,
    sourceOffset: number,
    offset: number,
    length: number,
    options: RequestOptions | undefined,
  ): Promise<void> {
    await this.#preserve(offset, length, options?.signal);
    return this.#source.copyRangeTo(source, sourceOffset, offset, length, options);
  }

  /** Waits until the range may be overwritten. @throws what the copy reports, if that is the guest's to bear */
  async #preserve(offset: number, length: number, signal: AbortSignal | undefined): Promise<void> {
    const startMs = this.#env.clock.now();
    try {
      if (this.#view.error === undefined) await this.#copy(offset, length, signal);
      // A copy that was late may be discarding the source still.
      if (this.#view.error !== undefined) {
        await orAborted(this.engine.discardsGone(offset, length), signal);
      }
      // Nobody freezes the range any more: it is copied, or the snapshot is broken.
      await this.#view.readersGone(offset, length, signal);
    } finally {
      this.writeDelay.record(this.#env.clock.now() - startMs);
    }
  }

  async #copy(offset: number, length: number, signal: AbortSignal | undefined): Promise<void> {
    const { engine } = this;
    const end = Math.min(offset + length, engine.size);
    if (offset >= end) return;
    const start = alignDown(offset, this.#clusterSize);
    // The copy may outlive the write that asked for it: a drain waits for both.
    const hold = this.#host.holdInFlight();
    try {
      const copied = engine.copy(start, alignUp(end - start, this.#clusterSize), {
        ignoreRateLimit: true,
        timeoutMs: this.#timeoutMs,
        onEnd: () => hold[Symbol.dispose](),
      });
      await orAborted(copied, signal);
    } catch (error) {
      const isBorneByGuest = this.#options["on-cbw-error"] === "break-guest-write";
      // A write that was given up overwrites nothing, so the snapshot need not suffer.
      if (isBorneByGuest || signal?.aborted === true) throw error;
      this.#breakSnapshot(toBlockError(error, "copy before write failed"));
    }
  }

  #breakSnapshot(error: BlockError): void {
    if (this.#view.error !== undefined) return;
    this.#view.break(error);
    // What guests write now is saved nowhere, and must stay.
    this.engine.setDiscardSource(false);
    this.onSnapshotBroken?.(error);
  }
}

/**
 * The filter of a node.
 *
 * @throws BlockError `EINVAL` the node is none
 */
export function asCopyBeforeWrite(node: BlockNode): CopyBeforeWriteDriver {
  const { driver, name } = node;
  if (isCopyBeforeWrite(driver)) return driver;
  throw new BlockError("EINVAL", `Node '${name}' is not a copy-before-write filter`, {
    node: name,
  });
}

/** Whether a driver is the copy-before-write filter. */
export function isCopyBeforeWrite(driver: BlockDriver): driver is CopyBeforeWriteDriver {
  return driver instanceof CopyBeforeWriteDriver;
}
