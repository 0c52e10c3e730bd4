/**
 * Flags of a request, to be combined with `|`. A driver sees only those it declares to understand; the
 * graph emulates the others or masks them.
 *
 * @see spec/graph.md section 7.1
 */
export const RequestFlag = {
  /** Read: also write what was read into this layer, if it is not allocated there. */
  copyOnRead: 0x1,
  /** Write-zeroes: may deallocate if the range still reads as zeroes. Removed when the node ignores discards. */
  mayUnmap: 0x4,
  /** Complete only when stable. Emulated by a flush. */
  fua: 0x10,
  /** Write compressed. */
  compressed: 0x20,
  /** The write does not change visible content; it needs only the `writeUnchanged` permission. */
  writeUnchanged: 0x40,
  /** Write: overlap with no other request. */
  serialising: 0x80,
  /** Fail with `ENOTSUP` instead of emulating slowly. */
  noFallback: 0x100,
  /** Read: with `copyOnRead`, or alone as a hint, do not return data; the buffer stays as it is. */
  prefetch: 0x200,
  /** With `serialising` and an aligned range: `EBUSY` instead of waiting. */
  noWait: 0x400,
} as const;

/** What every request may carry. */
export interface RequestOptions {
  /** {@link RequestFlag} bits. Default 0. */
  readonly flags?: number;
  /** Stops waiting. What was sent is not unsent and stays counted as in flight. */
  readonly signal?: AbortSignal;
}

/** How the space of a growing disk is prepared. */
export type Preallocation = "off" | "metadata" | "falloc" | "full";

export interface TruncateOptions {
  /** Whether the size must be met exactly. `false` lets a device that is larger stay so. Default `true`. */
  readonly exact?: boolean;
  /** Default `"off"`. */
  readonly preallocation?: Preallocation;
  /** The new area must read as zeroes even where a backing node has data. Default `false`. */
  readonly zero?: boolean;
  readonly signal?: AbortSignal;
}

/**
 * The promise of a request that had completed when its method returned.
 *
 * A driver that finished its work within the call returns this very object, and layers above compare with it
 * (`promise === completed`) to go on in the same turn, without an allocation and without a microtask.
 * It is always correct to treat it as any other promise.
 */
export const completed: Promise<void> = Promise.resolve();

/**
 * Returns a rejected promise for a request that failed within the call, so that methods that are not `async`
 * never throw.
 */
export function rejected<T = void>(error: unknown): Promise<T> {
  return Promise.reject(error);
}
