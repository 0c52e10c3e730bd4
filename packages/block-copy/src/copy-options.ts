import type { BlockChild } from "@blocklayer/driver";
import type { Env } from "@blocklayer/env";
import type { HBitmap } from "@blocklayer/hbitmap";

export interface BlockCopyOptions {
  readonly env: Env;
  readonly source: BlockChild;
  readonly target: BlockChild;
  /** Bytes, a power of two; see `copyClusterSize`. */
  readonly clusterSize: number;
  /** What has to be copied, at any granularity; its size is the source's. Default: everything. */
  readonly initial?: HBitmap;
  /** Writes overlap with no other request: for a target whose backing chain contains the source. Default `false`. */
  readonly serialising?: boolean;
  /**
   * Told of whole clusters that were taken out of the copy bitmap and are not copied: the target does not hold
   * them. Synchronous.
   */
  readonly onSkip?: (offset: number, length: number) => void;
  /**
   * Awaited before the source is discarded where it was copied: resolves when nobody reads what was there from the
   * source. New readers find the clusters copied by then, see {@link BlockCopy.status}.
   */
  readonly beforeDiscard?: (offset: number, length: number) => Promise<void>;
}

/** What holds at an offset and how far, see {@link BlockCopy.status}. */
export interface CopyStatus {
  /** Whether nothing has to be copied or is being copied. */
  readonly clean: boolean;
  /** Bytes, 1 or more. */
  readonly length: number;
}

/** Where the engine reports its progress, in bytes; a job's progress meter fits. */
export interface CopyProgress {
  workDone(length: number): void;
  setRemaining(length: number): void;
}

export interface CopyOptions {
  /** Copy at once, whatever the speed limit; the bytes are charged to it. Default `false`. */
  readonly ignoreRateLimit?: boolean;
  /** Milliseconds after which the caller is answered `ETIMEDOUT`; 0 for never. Default 0. */
  readonly timeoutMs?: number;
  /** Called when no work of the call is left, also after a time-out, when some still runs for a while. */
  readonly onEnd?: () => void;
}
