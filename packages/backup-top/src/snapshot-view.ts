import type { BlockCopy } from "@blocklayer/block-copy";
import {
  type BlockChild,
  type BlockStatus,
  StatusFlag,
  type StatusOptions,
} from "@blocklayer/driver";
import type { Env } from "@blocklayer/env";
import { assert, BlockError } from "@blocklayer/errors";
import { HBitmap } from "@blocklayer/hbitmap";
import { alignDown, alignUp } from "@blocklayer/offsets";
import { type RangeHold, RangeLock } from "@blocklayer/range-lock";
import type { SnapshotReadOptions, SnapshotSource } from "./snapshot-source.ts";

export interface SnapshotViewOptions {
  readonly env: Env;
  /** The filter's node, for errors. */
  readonly node: string;
  readonly engine: BlockCopy;
  readonly source: BlockChild;
  readonly target: BlockChild;
}

/** A part of the snapshot that one child holds. */
interface Part {
  readonly child: BlockChild;
  /** Bytes. */
  readonly length: number;
  /** Set while the part is read from the source: whoever wants to overwrite it waits. */
  readonly hold: RangeHold | undefined;
}

/**
 * The disk as it was at the point in time.
 *
 * | cluster | is read from | a write to it |
 * | --- | --- | --- |
 * | not accessible: was not marked at the beginning, was skipped or discarded | nowhere, `EACCES` | goes on |
 * | to be copied, or being copied | the source, and is frozen meanwhile | copies, then waits for frozen reads |
 * | copied | the target | goes on when reads that froze it earlier have ended |
 *
 * "Copied" needs no record of its own: it is an accessible cluster that the engine has neither marked nor under
 * way. So a read takes its part from the place that the very byte's state says, also when a range spans several
 * states. After a broken snapshot every access fails, whichever state says what.
 *
 * Differs: the reference up to 7.2 takes a whole range from the source if any of it is not copied. And it reads
 * clusters that a `sync=top` backup skipped, from the source or, once they were overwritten, from whatever the
 * target holds there; here they are not accessible.
 *
 * @see spec/copy-before-write-and-backup.md section 4.4
 */
export class SnapshotView implements SnapshotSource {
  readonly #node: string;
  readonly #engine: BlockCopy;
  readonly #source: BlockChild;
  readonly #target: BlockChild;
  /** Set: may be read. */
  readonly #access: HBitmap;
  readonly #lock: RangeLock;
  /** The parts of reads that are read from the source this moment: the holds of the lock. */
  readonly #frozen: RangeHold[] = [];
  #error: BlockError | undefined;

  constructor(options: SnapshotViewOptions) {
    this.#node = options.node;
    this.#engine = options.engine;
    this.#source = options.source;
    this.#target = options.target;
    this.#access = new HBitmap(this.#engine.size, this.#engine.clusterSize);
    this.#lock = new RangeLock(options.env, "frozen snapshot reads");
    this.begin();
  }

  /** Why the snapshot is broken. */
  get error(): BlockError | undefined {
    return this.#error;
  }

  /** Takes what the engine has to copy as what may be read. */
  begin(): void {
    this.#access.truncate(this.#engine.size);
    this.#access.resetAll();
    this.#access.merge(this.#engine.copyBitmap);
    this.#error = undefined;
  }

  /** From here on every access fails. The first error is kept. */
  break(error: BlockError): void {
    this.#error ??= error;
  }

  /** Takes clusters out of what may be read. */
  hide(offset: number, length: number): void {
    this.#access.reset(offset, Math.min(length, this.#engine.size - offset));
  }

  /** Whether some of the range is read from the source this moment. */
  isFrozen(offset: number, length: number): boolean {
    const end = offset + length;
    for (let index = 0; index < this.#frozen.length; index += 1) {
      const part = this.#frozen[index];
      if (part !== undefined && part.offset < end && offset < part.offset + part.length)
        return true;
    }
    return false;
  }

  /** Resolves when the reads that froze some of the range have ended. */
  readersGone(offset: number, length: number, signal?: AbortSignal): Promise<void> {
    return this.#lock.waitUntilFree(offset, length, { signal });
  }

  async snapshotRead(
    offset: number,
    buffer: Uint8Array,
    options?: SnapshotReadOptions,
  ): Promise<void> {
    for (let done = 0; done < buffer.length; ) {
      const part = this.#part("snapshotRead", offset + done, buffer.length - done);
      try {
        const piece = buffer.subarray(done, done + part.length);
        await part.child.pread(offset + done, piece, options);
        // What was discarded meanwhile may have been read too late.
        this.#checkAccess("snapshotRead", offset + done, part.length);
      } finally {
        this.#thaw(part);
      }
      done += part.length;
    }
  }

  async snapshotStatus(
    offset: number,
    length: number,
    options?: StatusOptions,
  ): Promise<BlockStatus> {
    const part = this.#part("snapshotStatus", offset, length);
    const status = await this.#partStatus(part, offset, options);
    this.#checkAccess("snapshotStatus", offset, status.length);
    return status;
  }

  async #partStatus(
    part: Part,
    offset: number,
    options: StatusOptions | undefined,
  ): Promise<BlockStatus> {
    try {
      const status = await part.child.blockStatus(offset, part.length, options);
      const run = Math.max(1, Math.min(status.length, part.length));
      const flags = status.flags & (StatusFlag.data | StatusFlag.zero);
      if (flags !== 0) return { flags, length: run };
      // What the target's layer does not hold itself it shows from below: that is data of the snapshot.
      if (part.child === this.#target) return { flags: StatusFlag.data, length: run };
      return await this.#statusBelow(offset, run, options);
    } finally {
      this.#thaw(part);
    }
  }

  /**
   * What the source's own layer does not hold: not allocated, and known to be zeroes if its chain says so and the
   * caller cares.
   *
   * Differs: the reference does not look below the source's layer, so zeroes there are copied as data.
   */
  async #statusBelow(
    offset: number,
    length: number,
    options: StatusOptions | undefined,
  ): Promise<BlockStatus> {
    if (options?.wantZero === false) return { flags: 0, length };
    const status = await this.#source.chainStatus(offset, length, options);
    const flags = status.flags & StatusFlag.zero;
    return { flags, length: Math.max(1, Math.min(status.length, length)) };
  }

  async snapshotDiscard(offset: number, length: number): Promise<void> {
    const { clusterSize, size } = this.#engine;
    const start = alignUp(offset, clusterSize);
    const end = offset + length >= size ? size : alignDown(offset + length, clusterSize);
    if (end <= start) return;
    this.hide(start, end - start);
    this.#engine.reset(start, alignUp(end - start, clusterSize));
    await this.#target.pdiscard(start, end - start);
  }

  /** Finds out where the first part of a range is read, and freezes it if that is the source. No `await` in here. */
  #part(operation: string, offset: number, length: number): Part {
    const context = { node: this.#node, operation, offset, length };
    if (this.#error !== undefined) {
      throw new BlockError(
        "EACCES",
        "the snapshot is broken: a copy before a write failed",
        context,
        {
          cause: this.#error,
        },
      );
    }
    this.#checkAccess(operation, offset, length);
    const run = this.#engine.status(offset, length);
    if (run.clean) return { child: this.#target, length: run.length, hold: undefined };
    const hold = this.#lock.tryAcquire(offset, run.length, { mode: "shared" });
    assert(hold !== undefined, "readers wait for nobody");
    this.#frozen.push(hold);
    return { child: this.#source, length: run.length, hold };
  }

  /** @throws BlockError `EACCES` the range is not, or not any more, part of the snapshot */
  #checkAccess(operation: string, offset: number, length: number): void {
    const isInside = offset + length <= this.#engine.size;
    if (isInside && this.#access.nextZero(offset, length) < 0) return;
    throw new BlockError(
      "EACCES",
      `${length} bytes at ${offset} are not all part of the snapshot`,
      { node: this.#node, operation, offset, length },
    );
  }

  #thaw({ hold }: Part): void {
    if (hold === undefined) return;
    this.#frozen.splice(this.#frozen.indexOf(hold), 1);
    hold.release();
  }
}
