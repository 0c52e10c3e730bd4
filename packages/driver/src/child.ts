import type { BlockDriver, DriverFlags } from "./driver.ts";
import type { CheckOptions, CheckResult, ImageInfo } from "./image.ts";
import type { BlockLimits } from "./limits.ts";
import type { Permission } from "./permissions.ts";
import type { RequestOptions, TruncateOptions } from "./request.ts";
import type { RoleMask } from "./role.ts";
import type { BlockStatus, ChainStatusOptions, StatusOptions } from "./status.ts";

/**
 * What a driver may ask of the node below it: the edge, the only door to that node.
 *
 * Requests need not be aligned to the child's limits nor be shorter than its `maxTransfer`: the node below
 * pads and splits. They must lie inside the child, or the edge must hold the `resize` permission. The caller
 * owns every buffer until the promise settles and after; nobody keeps a reference.
 */
export interface BlockChild {
  /** The name of the edge: `"file"`, `"backing"`, `"target"`. */
  readonly name: string;
  readonly role: RoleMask;
  /** Name of the node below. Changes when the graph re-points the edge. */
  readonly nodeName: string;
  /** Driver name of the node below. */
  readonly driverName: string;
  /** Bytes. */
  readonly size: number;
  readonly limits: BlockLimits;
  /** Request flags that the node below understands natively. */
  readonly flags: DriverFlags;
  /** How the node below writes zeroes. */
  readonly zeroes: BlockDriver["zeroes"];
  /** What this edge may do now. */
  readonly perm: Permission;
  /** What this edge lets others do now. */
  readonly shared: Permission;

  /** Fills all of `buffer` or rejects. Beyond the end of the child it reads zeroes. */
  pread(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void>;
  /** Writes all of `buffer` or rejects. */
  pwrite(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void>;
  /** Writes the buffers one after the other as one request. */
  pwritev(offset: number, buffers: readonly Uint8Array[], options?: RequestOptions): Promise<void>;
  pwriteZeroes(offset: number, length: number, options?: RequestOptions): Promise<void>;
  /** Succeeds without action where discards are ignored or not supported. */
  pdiscard(offset: number, length: number, options?: RequestOptions): Promise<void>;
  flush(options?: RequestOptions): Promise<void>;
  /** The status of the child's own layer. */
  blockStatus(offset: number, length: number, options?: StatusOptions): Promise<BlockStatus>;
  /**
   * The status over the chain that starts at the child: the first layer that decides the content answers.
   *
   * @returns the status and `depth`, the number of layers walked (1 = the child itself), 0 when none decides
   */
  chainStatus(
    offset: number,
    length: number,
    options?: ChainStatusOptions,
  ): Promise<BlockStatus & { readonly depth: number }>;
  truncate(size: number, options?: TruncateOptions): Promise<void>;
  /** Drops all data of the child's layer, so that its backing shows. @throws BlockError `ENOTSUP` */
  makeEmpty(options?: RequestOptions): Promise<void>;
  /**
   * Copies a range of the child to `target` without moving the bytes through this process.
   *
   * @throws BlockError `ENOTSUP` not possible between the two; the caller reads and writes instead
   */
  copyRangeFrom(
    offset: number,
    target: BlockChild,
    targetOffset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void>;
  /** The receiving side of {@link copyRangeFrom}; `source` is the driver that holds the bytes. */
  copyRangeTo(
    source: BlockDriver,
    sourceOffset: number,
    offset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void>;
  /** @throws BlockError `ENOTSUP` the driver has nothing to tell */
  getInfo(): Promise<ImageInfo>;
  /** @throws BlockError `ENOTSUP` the format has no check */
  check(options?: CheckOptions): Promise<CheckResult>;
  /** Bytes that the child occupies in its storage, `undefined` where unknown. */
  allocatedSize(): Promise<number | undefined>;
  /** Bytes by which the child's storage may still grow, `undefined` where unknown. */
  freeSpace(): Promise<number | undefined>;
}
