import {
  type BlockChild,
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  type ChildPermissionsInput,
  type DriverFlags,
  defaultChildPermissions,
  type ImageInfo,
  type NodeHost,
  type PermissionSet,
  Permissions,
  type PreparedReopen,
  type ReopenChange,
  RequestFlag,
  type RequestOptions,
  rejected,
  StatusFlag,
  type TruncateOptions,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { MAX_LENGTH } from "@blocklayer/offsets";
import { roleOf } from "./role.ts";
import { GUARDED_LENGTH, type SectorGuard } from "./sector-guard.ts";
import { checkWindow, type RawWindow, windowSize } from "./window.ts";

/** The flags that raw hands on; those of copy-on-read and compression mean something at the file, not here. */
const READ_FLAGS = RequestFlag.prefetch;
const WRITE_FLAGS = RequestFlag.fua;
const ZEROES_FLAGS = RequestFlag.fua | RequestFlag.mayUnmap | RequestFlag.noFallback;

const NO_LIMITS: Partial<BlockLimits> = {};
const GUARD_LIMITS: Partial<BlockLimits> = { requestAlignment: GUARDED_LENGTH };

/** What {@link RawDriver} needs of the world above. */
export type RawHost = Pick<NodeHost, "nodeName" | "resized">;

/**
 * Shows a file, or a window of it, as a disk.
 *
 * Every request is the child's own, moved by the window's offset: nothing is allocated and nothing awaited.
 */
export class RawDriver implements BlockDriver {
  readonly driverName: string = "raw";
  readonly #host: RawHost;
  readonly #child: BlockChild;
  readonly #guard: SectorGuard | undefined;
  #window: RawWindow;
  // The window's offset and where it ends, in the child; kept apart for the request path.
  #start: number = 0;
  #sizeMax: number = MAX_LENGTH;
  #flags: DriverFlags = { read: 0, write: 0, zeroes: 0, truncateZero: false };

  /** @param guard - given for a disk whose format was detected */
  constructor(host: RawHost, child: BlockChild, window: RawWindow, guard?: SectorGuard) {
    this.#host = host;
    this.#child = child;
    this.#guard = guard;
    this.#window = window;
    this.#setWindow(window);
  }

  get size(): number {
    return windowSize(this.#window, this.#child.size);
  }

  get limits(): Partial<BlockLimits> {
    return this.#guard === undefined ? NO_LIMITS : GUARD_LIMITS;
  }

  /** The same object as long as the child's flags are the same. */
  get flags(): DriverFlags {
    const { flags } = this.#child;
    const read = flags.read & READ_FLAGS;
    const write = (flags.write & WRITE_FLAGS) | RequestFlag.writeUnchanged;
    const zeroes = (flags.zeroes & ZEROES_FLAGS) | RequestFlag.writeUnchanged;
    const { truncateZero } = flags;
    const known = this.#flags;
    const isSame =
      known.read === read &&
      known.write === write &&
      known.zeroes === zeroes &&
      known.truncateZero === truncateZero;
    if (!isSame) this.#flags = { read, write, zeroes, truncateZero };
    return this.#flags;
  }

  get zeroes(): BlockDriver["zeroes"] {
    // The child's node emulates when it must.
    return this.#child.zeroes === "none" ? "none" : "native";
  }

  pread(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    if (offset + buffer.length > this.#sizeMax) {
      return this.#outside("EINVAL", "pread", offset, buffer.length);
    }
    return this.#child.pread(this.#start + offset, buffer, options);
  }

  pwrite(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    if (offset + buffer.length > this.#sizeMax) {
      return this.#outside("ENOSPC", "pwrite", offset, buffer.length);
    }
    if (this.#guard !== undefined && offset < GUARDED_LENGTH) {
      return this.#writeGuarded(this.#guard, [buffer], options);
    }
    return this.#child.pwrite(this.#start + offset, buffer, options);
  }

  pwritev(offset: number, buffers: readonly Uint8Array[], options?: RequestOptions): Promise<void> {
    // Without a window of fixed size the length is nobody's concern here.
    if (this.#window.size !== undefined) {
      const length = buffers.reduce((sum, buffer) => sum + buffer.length, 0);
      if (offset + length > this.#sizeMax) {
        return this.#outside("ENOSPC", "pwrite", offset, length);
      }
    }
    if (this.#guard !== undefined && offset < GUARDED_LENGTH) {
      return this.#writeGuarded(this.#guard, buffers, options);
    }
    return this.#child.pwritev(this.#start + offset, buffers, options);
  }

  pwriteZeroes(offset: number, length: number, options?: RequestOptions): Promise<void> {
    if (offset + length > this.#sizeMax) {
      return this.#outside("ENOSPC", "pwriteZeroes", offset, length);
    }
    return this.#child.pwriteZeroes(this.#start + offset, length, options);
  }

  pdiscard(offset: number, length: number, options?: RequestOptions): Promise<void> {
    if (offset + length > this.#sizeMax) {
      return this.#outside("ENOSPC", "pdiscard", offset, length);
    }
    return this.#child.pdiscard(this.#start + offset, length, options);
  }

  /** Everything is in the file: whoever asks goes on asking there. */
  blockStatus(offset: number, length: number): Promise<BlockStatus> {
    const flags = StatusFlag.raw | StatusFlag.offsetValid;
    const child = this.#child;
    return Promise.resolve({ flags, length, offset: this.#start + offset, child });
  }

  truncate(size: number, options?: TruncateOptions): Promise<void> {
    const context = { node: this.#host.nodeName, operation: "truncate", size };
    if (this.#window.size !== undefined) {
      return rejected(new BlockError("ENOTSUP", "Cannot resize fixed-size raw disks", context));
    }
    if (size > this.#sizeMax) {
      const message = `a disk of ${size} bytes at offset ${this.#start} ends beyond ${MAX_LENGTH}`;
      return rejected(new BlockError("EINVAL", message, context));
    }
    return this.#child.truncate(this.#start + size, options);
  }

  copyRangeFrom(
    offset: number,
    target: BlockChild,
    targetOffset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    if (offset + length > this.#sizeMax) {
      return this.#outside("EINVAL", "copyRangeFrom", offset, length);
    }
    return this.#child.copyRangeFrom(this.#start + offset, target, targetOffset, length, options);
  }

  copyRangeTo(
    source: BlockDriver,
    sourceOffset: number,
    offset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    if (offset + length > this.#sizeMax) {
      return this.#outside("ENOSPC", "copyRangeTo", offset, length);
    }
    if (this.#guard !== undefined && offset < GUARDED_LENGTH) {
      // What is copied without being seen can not be judged; the caller reads and writes instead.
      const context = { node: this.#host.nodeName, operation: "copyRangeTo", offset, length };
      const message = "a guarded first sector is not copied to unseen";
      return rejected(new BlockError("ENOTSUP", message, context));
    }
    return this.#child.copyRangeTo(source, sourceOffset, this.#start + offset, length, options);
  }

  getInfo(): Promise<ImageInfo> {
    return this.#child.getInfo();
  }

  allocatedSize(): Promise<number | undefined> {
    return this.#child.allocatedSize();
  }

  freeSpace(): Promise<number | undefined> {
    return this.#child.freeSpace();
  }

  /**
   * Those of the role that the present window gives the file; but write and resize only when the parents take
   * them: writes of a raw disk never end elsewhere in the file.
   */
  childPermissions(
    _child: Pick<BlockChild, "name" | "role">,
    input: ChildPermissionsInput,
  ): PermissionSet {
    const { perm, shared } = defaultChildPermissions(roleOf(this.#window), input);
    const writers = Permissions.write | Permissions.resize;
    return { perm: (perm & ~writers) | (input.perm & writers), shared };
  }

  prepareReopen(change: ReopenChange): Promise<PreparedReopen> {
    const { offset, size } = change.options as { offset: number; size?: number };
    const window: RawWindow = { offset, size };
    try {
      checkWindow(window, this.#child.size, this.#host.nodeName);
    } catch (error) {
      return rejected(error);
    }
    return Promise.resolve({
      commit: () => {
        const oldSize = this.size;
        this.#setWindow(window);
        if (this.size !== oldSize) this.#host.resized();
      },
      abort: () => undefined,
    });
  }

  /** Nothing to let go of: the graph closes the child. */
  close(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #setWindow(window: RawWindow): void {
    this.#window = window;
    this.#start = window.offset;
    this.#sizeMax = window.size ?? MAX_LENGTH - window.offset;
  }

  #writeGuarded(
    guard: SectorGuard,
    buffers: readonly Uint8Array[],
    options: RequestOptions | undefined,
  ): Promise<void> {
    try {
      return this.#child.pwritev(this.#start, guard.admit(buffers), options);
    } catch (error) {
      return rejected(error);
    }
  }

  /** Only with a window of fixed size, or beyond every offset, which is then `EINVAL`. */
  #outside(code: string, operation: string, offset: number, length: number): Promise<void> {
    const isOverflow = this.#window.size === undefined;
    const end = isOverflow ? "the largest offset" : `a window of ${this.#sizeMax} bytes`;
    return rejected(
      new BlockError(
        isOverflow ? "EINVAL" : code,
        `${operation} of ${length} bytes at ${offset} goes beyond ${end}`,
        { node: this.#host.nodeName, operation, offset, length },
      ),
    );
  }
}
