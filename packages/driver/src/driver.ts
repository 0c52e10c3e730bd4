import type { BlockChild } from "./child.ts";
import type {
  AmendProgress,
  CheckOptions,
  CheckResult,
  ImageInfo,
  SnapshotStore,
} from "./image.ts";
import type { BlockLimits } from "./limits.ts";
import type { ChildPermissionsInput, PermissionSet } from "./permissions.ts";
import type { PersistentBitmaps } from "./persistent-bitmaps.ts";
import type { RequestOptions, TruncateOptions } from "./request.ts";
import type { BlockStatus, StatusOptions } from "./status.ts";

/** Request flags (`RequestFlag` bits) that a driver understands itself; the graph masks or emulates the rest. */
export interface DriverFlags {
  readonly read: number;
  readonly write: number;
  readonly zeroes: number;
  /** Whether `truncate` understands `zero`. */
  readonly truncateZero: boolean;
}

/** The permissions that a node is about to have. */
export type PermissionChange = PermissionSet;

/** What a reopen asks of a driver. */
export interface ReopenChange {
  /** The complete new options of the driver, parsed by its schema. */
  readonly options: unknown;
  /** Whether the node will be read-only. */
  readonly readOnly: boolean;
}

/** A reopen that is ready: exactly one of `commit` and `abort` is called, synchronously, then `clean`. */
export interface PreparedReopen {
  /** The driver's limits once it is committed, where they change: the graph refuses what contradicts itself. */
  readonly limits?: Partial<BlockLimits>;
  commit(): void;
  abort(): void;
  clean?(): Promise<void>;
}

/**
 * What an implementer writes. A method that is not there is not supported; the graph emulates what it can.
 *
 * The graph calls with valid requests only: offsets and lengths are safe, lie inside the node, are aligned to
 * `limits`, not longer than they allow, and not zero; nothing is called before `open` resolved or after
 * `close`. Where `size` is not a multiple of the alignment, reads, writes and status queries of the last block go
 * beyond the end: there zeroes are read, and a write makes the node longer. Other writes beyond the end come only
 * from parents that may resize. Requests may overlap in time and in range unless the graph was told to serialise them. A
 * method that finished within the call returns `completed`. Methods reject, they do not throw.
 *
 * @see docs/design.md section 4
 */
export interface BlockDriver extends AsyncDisposable {
  readonly driverName: string;
  /** Bytes. The graph reads it after open, truncate, a write beyond the end, and `NodeHost.resized`. */
  readonly size: number;
  /** Read after open, after a reopen and whenever children change. */
  readonly limits?: Partial<BlockLimits>;
  readonly flags: DriverFlags;
  /**
   * `"native"`: `pwriteZeroes` is there. `"emulated"`: the graph writes zero bytes. `"none"`: never asked;
   * write-zeroes is refused with `ENOTSUP`.
   */
  readonly zeroes: "native" | "emulated" | "none";

  /** Fills all of `buffer` or rejects. */
  pread(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void>;
  pwrite?(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void>;
  /** Writes the buffers one after the other. Without it the graph gathers them into one. */
  pwritev?(offset: number, buffers: readonly Uint8Array[], options?: RequestOptions): Promise<void>;
  pwriteZeroes?(offset: number, length: number, options?: RequestOptions): Promise<void>;
  pdiscard?(offset: number, length: number, options?: RequestOptions): Promise<void>;
  /** A complete flush of its own; the graph then flushes nothing else. */
  flush?(options?: RequestOptions): Promise<void>;
  /** Hands what is cached in this driver to its children or to the operating system. */
  flushToOs?(options?: RequestOptions): Promise<void>;
  /** Makes stable what was handed on. */
  flushToDisk?(options?: RequestOptions): Promise<void>;
  /** The status at `offset`, for at most `length` bytes, by the flags a driver may set (`StatusFlag`). */
  blockStatus?(offset: number, length: number, options?: StatusOptions): Promise<BlockStatus>;
  truncate?(size: number, options?: TruncateOptions): Promise<void>;
  makeEmpty?(options?: RequestOptions): Promise<void>;
  /** Maps the range and asks its child, or, where the bytes are, calls `target.copyRangeTo(this, …)`. */
  copyRangeFrom?(
    offset: number,
    target: BlockChild,
    targetOffset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void>;
  /** Maps the range and asks its child, or, where the bytes go, copies from `source` if it knows it. */
  copyRangeTo?(
    source: BlockDriver,
    sourceOffset: number,
    offset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void>;
  getInfo?(): Promise<ImageInfo>;
  allocatedSize?(): Promise<number | undefined>;
  /** Bytes by which the storage below may still grow, `undefined` where that is not known. */
  freeSpace?(): Promise<number | undefined>;
  check?(options?: CheckOptions): Promise<CheckResult>;
  amend?(options: unknown, progress?: AmendProgress): Promise<void>;
  readonly snapshots?: SnapshotStore;
  readonly persistentBitmaps?: PersistentBitmaps;

  /**
   * The permissions this node takes on a child. Pure and synchronous. Without it: those of the child's role.
   *
   * @param child - the edge; its name and role decide
   */
  childPermissions?(
    child: Pick<BlockChild, "name" | "role">,
    input: ChildPermissionsInput,
  ): PermissionSet;
  /** Gets ready for new permissions (opens a descriptor, takes locks). Undone by `abortPermissions`. */
  preparePermissions?(change: PermissionChange): Promise<void>;
  /** Refuses permissions by throwing. */
  checkPermissions?(change: PermissionChange): void;
  setPermissions?(change: PermissionChange): void;
  abortPermissions?(): void;

  /** Stops activity of its own (timers, background work); resolves when it is quiet. */
  drainBegin?(): Promise<void>;
  drainEnd?(): void;
  /** Makes requests fail that wait for something that may never come, such as a reconnection. */
  cancelInFlight?(): void;
  /** Gives the image up to another process: writes everything back and stops writing. */
  inactivate?(): Promise<void>;
  /** Takes the image again: forgets what was cached. */
  activate?(): Promise<void>;
  /** Without it the node cannot be reopened with other options. */
  prepareReopen?(change: ReopenChange): Promise<PreparedReopen>;
  /** Flushes and lets go of everything. Idempotent. The graph closes children after it. */
  close(): Promise<void>;
}
