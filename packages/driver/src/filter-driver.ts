import type { BlockChild } from "./child.ts";
import type { BlockDriver, DriverFlags, PreparedReopen, ReopenChange } from "./driver.ts";
import type { CheckOptions, CheckResult, ImageInfo } from "./image.ts";
import type { BlockLimits } from "./limits.ts";
import { RequestFlag, type RequestOptions, type TruncateOptions } from "./request.ts";
import { type BlockStatus, StatusFlag, type StatusOptions } from "./status.ts";

/**
 * A driver that shows its one child unchanged. A filter extends it and overrides what it changes; what it
 * does not mention passes through, at the cost of returning the child's promise.
 *
 * `write-unchanged` is supported natively, as for every filter; the other flags where the child does.
 */
export abstract class FilterDriver implements BlockDriver {
  abstract readonly driverName: string;
  /** The filtered child. */
  readonly child: BlockChild;

  constructor(child: BlockChild) {
    this.child = child;
  }

  get size(): number {
    return this.child.size;
  }

  get limits(): Partial<BlockLimits> {
    return {};
  }

  get flags(): DriverFlags {
    const { read, write, zeroes, truncateZero } = this.child.flags;
    return {
      read,
      write: write | RequestFlag.writeUnchanged,
      zeroes: zeroes | RequestFlag.writeUnchanged,
      truncateZero,
    };
  }

  get zeroes(): "native" | "emulated" | "none" {
    // The child's node emulates when it must, so the filter need not.
    return this.child.zeroes === "none" ? "none" : "native";
  }

  pread(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    return this.child.pread(offset, buffer, options);
  }

  pwrite(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    return this.child.pwrite(offset, buffer, options);
  }

  pwritev(offset: number, buffers: readonly Uint8Array[], options?: RequestOptions): Promise<void> {
    return this.child.pwritev(offset, buffers, options);
  }

  pwriteZeroes(offset: number, length: number, options?: RequestOptions): Promise<void> {
    return this.child.pwriteZeroes(offset, length, options);
  }

  pdiscard(offset: number, length: number, options?: RequestOptions): Promise<void> {
    return this.child.pdiscard(offset, length, options);
  }

  blockStatus(offset: number, length: number, _options?: StatusOptions): Promise<BlockStatus> {
    const flags = StatusFlag.raw | StatusFlag.offsetValid;
    return Promise.resolve({ flags, length, offset, child: this.child });
  }

  truncate(size: number, options?: TruncateOptions): Promise<void> {
    return this.child.truncate(size, options);
  }

  copyRangeFrom(
    offset: number,
    target: BlockChild,
    targetOffset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    return this.child.copyRangeFrom(offset, target, targetOffset, length, options);
  }

  copyRangeTo(
    source: BlockDriver,
    sourceOffset: number,
    offset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    return this.child.copyRangeTo(source, sourceOffset, offset, length, options);
  }

  getInfo(): Promise<ImageInfo> {
    return this.child.getInfo();
  }

  allocatedSize(): Promise<number | undefined> {
    return this.child.allocatedSize();
  }

  freeSpace(): Promise<number | undefined> {
    return this.child.freeSpace();
  }

  check(options?: CheckOptions): Promise<CheckResult> {
    return this.child.check(options);
  }

  /** A filter without options of its own accepts any reopen. */
  prepareReopen(_change: ReopenChange): Promise<PreparedReopen> {
    return Promise.resolve({ commit: () => undefined, abort: () => undefined });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
