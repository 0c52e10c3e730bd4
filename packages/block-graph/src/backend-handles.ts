import type {
  BlockLimits,
  ChainStatusOptions,
  PermissionName,
  RequestOptions,
  TruncateOptions,
} from "@blocklayer/driver";
import type { Emitter } from "@blocklayer/errors";
import type { BlockNode } from "./block-node.ts";
import type { Edge } from "./edge.ts";
import type { ChainStatus } from "./io/block-status.ts";

/** How a backend is made. */
export interface BackendOptions<Perm extends PermissionName = PermissionName> {
  /** The node or its name. */
  readonly node: BlockNode | string;
  /** The device name, which messages show. No node has the same. Default: none. */
  readonly name?: string;
  /** What the user of the backend does. Decides which methods the backend has. */
  readonly perm: readonly Perm[];
  /** What others may do meanwhile. Default: everything. */
  readonly shared?: readonly PermissionName[];
  /** Whether reads and, with the `"resize"` permission, writes may go beyond the end. Default `false`. */
  readonly allowBeyondEnd?: boolean;
  /** Whether requests wait while the node is drained. Without it the user keeps them back. Default `true`. */
  readonly queueWhenDrained?: boolean;
}

/** What a backend tells of, within the graph's own turns: a listener that throws is logged. */
export interface BackendEvents {
  /** The node's length has changed, in bytes. */
  resized: { readonly size: number };
  /** The first drained section began: requests wait from here on. */
  drained: undefined;
  /** The last drained section has ended. */
  undrained: undefined;
  /** The backend leads to another node now. */
  nodeChanged: { readonly node: string };
}

/**
 * A disk that may be read.
 *
 * All requests reject with `RangeError` for offsets and lengths that are not integers, `EIO` for ranges that are not
 * inside the disk, `ENOMEDIUM` after the backend was closed or its node taken away, and the signal's reason when the
 * signal is aborted while they wait.
 */
export interface ReadableBackend extends AsyncDisposable {
  readonly name: string | undefined;
  /** `undefined` after close. */
  readonly node: BlockNode | undefined;
  /** The link to the node, for packages that build on the graph. */
  readonly edge: Edge | undefined;
  /** Bytes, 0 after close. */
  readonly size: number;
  readonly perm: readonly PermissionName[];
  readonly limits: BlockLimits;
  /** Requests that have started and not ended. Those that wait for the end of a drained section are not among them. */
  readonly inFlight: number;
  readonly isDrained: boolean;
  readonly events: Emitter<BackendEvents>;
  /** Fills all of `buffer` or rejects. */
  read(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void>;
  /** The status over the whole chain: the first layer that decides the content answers. */
  blockStatus(offset: number, length: number, options?: ChainStatusOptions): Promise<ChainStatus>;
  /** Makes stable what was written before the flush started. */
  flush(options?: RequestOptions): Promise<void>;
  /**
   * Copies a range to another node without moving the bytes through this process.
   *
   * @param target - an edge that may write
   * @throws BlockError `ENOTSUP` not possible between the two; read and write instead
   */
  copyRange(
    offset: number,
    target: Edge,
    targetOffset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void>;
  /** Calls `listener` with the new length in bytes whenever it changes. */
  onResize(listener: (size: number) => void): Disposable;
  /**
   * Waits for the requests in flight, rejects those that wait for the end of a drained section, and lets go of the
   * node. Does not flush: what was written is the node's, and it flushes when it closes. Idempotent.
   */
  close(): Promise<void>;
}

/** A disk that may be read and written. */
export interface WritableBackend extends ReadableBackend {
  /** Writes all of `buffer` or rejects. */
  write(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void>;
  /** Writes the buffers one after the other as one request. */
  writev(offset: number, buffers: readonly Uint8Array[], options?: RequestOptions): Promise<void>;
  writeZeroes(offset: number, length: number, options?: RequestOptions): Promise<void>;
  /** Tells that a range is not needed any more. Advice: success says nothing of the content. */
  discard(offset: number, length: number, options?: RequestOptions): Promise<void>;
}

/** A disk whose length may change as well. */
export interface ResizableBackend extends WritableBackend {
  /** @param size - bytes */
  truncate(size: number, options?: TruncateOptions): Promise<void>;
}

/**
 * The backend that permissions allow. `"write"` and `"write-unchanged"` bring the writing methods, `"resize"` brings
 * `truncate`. Permissions that are known only when the program runs bring all methods, which check then.
 */
export type BackendFor<Perm extends PermissionName> = ("write" extends Perm
  ? WritableBackend
  : "write-unchanged" extends Perm
    ? WritableBackend
    : ReadableBackend) &
  ("resize" extends Perm ? Pick<ResizableBackend, "truncate"> : unknown);
