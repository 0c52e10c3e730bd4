import {
  type BlockChild,
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  completed,
  type DriverFlags,
  type ImageInfo,
  type NodeHost,
  type PermissionChange,
  Permissions,
  type PreparedReopen,
  type ReopenChange,
  RequestFlag,
  type RequestOptions,
  rejected,
  StatusFlag,
  type StatusOptions,
  type TruncateOptions,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import type { Access } from "./access.ts";
import type { CallQueue } from "./call-queue.ts";
import { copyRange } from "./copy-range.ts";
import type { Extents } from "./extents.ts";
import type { FileIo } from "./file-io.ts";
import type { FileOptions } from "./file-options.ts";
import type { FlushLine } from "./flush-line.ts";
import { ioError } from "./io-error.ts";
import type { OperatingSystem } from "./operating-system.ts";
import { resizeFile } from "./resize.ts";
import type { DiscardStats, Space } from "./space.ts";

const DATA = StatusFlag.data | StatusFlag.offsetValid;

/** What an open file consists of. */
export interface FileParts {
  readonly system: OperatingSystem;
  readonly host: NodeHost;
  readonly options: FileOptions;
  readonly isDevice: boolean;
  /** Bytes; 1 unless the page cache is bypassed. */
  readonly alignment: number;
  /** Of calls on the thread pool, native ones among them. */
  readonly calls: CallQueue;
  readonly io: FileIo;
  readonly flushes: FlushLine;
  readonly space: Space;
  readonly extents: Extents;
  readonly access: Access;
}

/**
 * A disk in a regular file or a block device.
 *
 * | part | knows |
 * | --- | --- |
 * | `FileIo` | how bytes get in and out without holding the event loop |
 * | `FlushLine` | which flush covers which writes, and that a failure stays |
 * | `Space`, `Extents` | holes: making them and finding them |
 * | `Access` | descriptors and locks: who may do what |
 *
 * @see spec/filters-and-raw.md section 6
 */
export class FileDriver implements BlockDriver {
  readonly driverName: string;
  readonly flags: DriverFlags;
  readonly zeroes: BlockDriver["zeroes"] = "emulated";
  readonly limits: Partial<BlockLimits>;
  readonly #parts: FileParts;
  #closing: Promise<void> | undefined;

  constructor(driverName: string, parts: FileParts) {
    this.driverName = driverName;
    this.#parts = parts;
    this.limits = { requestAlignment: parts.alignment };
    this.flags = {
      read: 0,
      write: 0,
      zeroes: parts.system.native === undefined ? 0 : RequestFlag.mayUnmap | RequestFlag.noFallback,
      truncateZero: !parts.isDevice,
    };
  }

  /** Bytes. */
  get size(): number {
    return this.#parts.io.size;
  }

  pread(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    return this.#parts.io.pread(offset, buffer, options);
  }

  pwrite(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    return this.#parts.io.pwrite(offset, buffer, options);
  }

  pwritev(offset: number, buffers: readonly Uint8Array[], options?: RequestOptions): Promise<void> {
    return this.#parts.io.pwritev(offset, buffers, options);
  }

  flush(options?: RequestOptions): Promise<void> {
    const signal = options?.signal;
    if (signal?.aborted === true) return rejected(signal.reason);
    // What was opened for reading has nothing to make stable, and nothing else to report.
    if (!this.#parts.io.descriptor.isWritable && this.#parts.flushes.failure === undefined) {
      return completed;
    }
    return this.#parts.flushes.flush();
  }

  blockStatus(offset: number, length: number, options?: StatusOptions): Promise<BlockStatus> {
    const { extents, isDevice, system } = this.#parts;
    if (options?.wantZero === false || isDevice || system.native === undefined) {
      return Promise.resolve({ flags: DATA, length, offset });
    }
    return extents.status(this.#parts.io.descriptor, offset, length);
  }

  async truncate(size: number, options: TruncateOptions = {}): Promise<void> {
    const { system, calls, space, host, isDevice, access } = this.#parts;
    if (isDevice) return this.#truncateDevice(size, options);
    this.#parts.io.isDirty = true;
    const descriptor = await access.bufferedDescriptor();
    // A failure is told to a descriptor once: whoever hears of it must remember it for the guest's next flush.
    const sync = (): Promise<void> => this.#parts.flushes.flush();
    const target = { system, calls, space, descriptor, sync, name: host.nodeName };
    try {
      await descriptor.hold(() => resizeFile(target, this.#parts.io.size, size, options));
      this.#parts.io.size = size;
    } finally {
      if (descriptor !== this.#parts.io.descriptor) await descriptor.retire();
    }
  }

  /** A device has the length it has: a smaller disk fits in it, a larger one does not. */
  #truncateDevice(size: number, { exact = true, preallocation = "off" }: TruncateOptions): void {
    const context = { node: this.#parts.host.nodeName, operation: "truncate", size };
    if (preallocation !== "off") {
      const text = `Preallocation mode '${preallocation}' unsupported for this non-regular file`;
      throw new BlockError("ENOTSUP", text, context);
    }
    if (size > this.size) throw new BlockError("EINVAL", "Cannot grow device files", context);
    if (exact && size !== this.size) {
      throw new BlockError("ENOTSUP", "Cannot resize device files", context);
    }
  }

  getInfo(): Promise<ImageInfo> {
    return Promise.resolve({});
  }

  async allocatedSize(): Promise<number | undefined> {
    try {
      const { allocated } = await this.#parts.io.descriptor.hold((fd) =>
        this.#parts.system.fstat(fd),
      );
      return allocated;
    } catch (error) {
      const context = { node: this.#parts.host.nodeName, operation: "allocatedSize" };
      throw ioError(error, "asking for the allocated size failed", context);
    }
  }

  /** What the file system has left for this user; a device does not grow. */
  async freeSpace(): Promise<number | undefined> {
    if (this.#parts.isDevice) return undefined;
    try {
      const { available } = await this.#parts.system.statfs(this.#parts.options.filename);
      return available;
    } catch (error) {
      const context = { node: this.#parts.host.nodeName, operation: "freeSpace" };
      throw ioError(error, "asking for the free space failed", context);
    }
  }

  preparePermissions(change: PermissionChange): Promise<void> {
    return this.#parts.access.prepare(change);
  }

  setPermissions(change: PermissionChange): void {
    this.#parts.access.commit(change);
  }

  abortPermissions(): void {
    this.#parts.access.abort();
  }

  /** Refuses to write where the node is read-only. */
  checkPermissions({ perm }: PermissionChange): void {
    const writes = Permissions.write | Permissions.writeUnchanged | Permissions.resize;
    if ((perm & writes) === 0 || this.#parts.access.canWrite) return;
    const node = this.#parts.host.nodeName;
    throw new BlockError("EACCES", "Block node is read-only", { node });
  }

  async inactivate(): Promise<void> {
    await this.flush();
    this.#parts.access.inactivate();
  }

  async activate(): Promise<void> {
    await this.#parts.access.activate();
    if (!this.#parts.isDevice) await this.#parts.io.refreshSize();
  }

  async prepareReopen({ options, readOnly }: ReopenChange): Promise<PreparedReopen> {
    // Parsed by the schema of this driver.
    const wanted = options as FileOptions;
    const { host, access } = this.#parts;
    if (wanted.filename !== this.#parts.options.filename) {
      const context = { node: host.nodeName, option: "filename" };
      throw new BlockError("EINVAL", "Cannot change the option 'filename'", context);
    }
    return access.prepareReopen({ readOnly, locking: wanted.locking });
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    try {
      await this.flush();
    } finally {
      await this.#parts.access.close();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * A file whose space can be managed: the operations that Node lacks. Without native calls a graph writes zero bytes,
 * ignores discards and copies through memory.
 */
export class NativeFileDriver extends FileDriver {
  override readonly zeroes = "native";
  readonly #parts: FileParts;

  constructor(driverName: string, parts: FileParts) {
    super(driverName, parts);
    this.#parts = parts;
  }

  /** Counts of discards. */
  get stats(): Readonly<DiscardStats> {
    return this.#parts.space.stats;
  }

  async pwriteZeroes(offset: number, length: number, options?: RequestOptions): Promise<void> {
    options?.signal?.throwIfAborted();
    const { space, host } = this.#parts;
    const { size, descriptor } = this.#parts.io;
    this.#parts.io.isDirty = true;
    const mayUnmap = host.options.discard === "unmap";
    const request = { offset, length, size, flags: options?.flags ?? 0, mayUnmap };
    await descriptor.hold(() => space.zero(descriptor, request));
    if (!this.#parts.isDevice) this.#parts.io.size = Math.max(this.#parts.io.size, offset + length);
  }

  async pdiscard(offset: number, length: number, options?: RequestOptions): Promise<void> {
    options?.signal?.throwIfAborted();
    this.#parts.io.isDirty = true;
    const { space, io } = this.#parts;
    await io.descriptor.hold(() => space.discard(io.descriptor, offset, length));
  }

  copyRangeFrom(
    offset: number,
    target: BlockChild,
    targetOffset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    return target.copyRangeTo(this, offset, targetOffset, length, options);
  }

  async copyRangeTo(
    source: BlockDriver,
    sourceOffset: number,
    offset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    options?.signal?.throwIfAborted();
    const { system, calls, host } = this.#parts;
    const from = source instanceof NativeFileDriver ? source.#parts.io.descriptor : undefined;
    this.#parts.io.isDirty = true;
    await copyRange(
      {
        native: system.native,
        calls,
        nodeName: host.nodeName,
        signal: options?.signal,
      },
      from === undefined ? undefined : { descriptor: from, offset: sourceOffset },
      { descriptor: this.#parts.io.descriptor, offset },
      length,
    );
    if (!this.#parts.isDevice) this.#parts.io.size = Math.max(this.#parts.io.size, offset + length);
  }
}
