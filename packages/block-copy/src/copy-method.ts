import { alignDown } from "@blocklayer/offsets";

/**
 * How a task copies: `cluster` reads and writes one cluster, `buffered` up to a buffer, `offload-small` tries
 * to copy without buffers, `offload-full` knows that it works.
 */
export type CopyMethod = "cluster" | "buffered" | "offload-small" | "offload-full";

/** Bytes of one read and write. */
export const BUFFERED_MAX: number = 2 ** 20;
/** Bytes of one offloaded copy, once one has worked. */
export const OFFLOAD_MAX: number = 16 * 2 ** 20;
/** Bytes: 2^31 − 1, the longest transfer anybody takes. */
const TRANSFER_MAX = 2 ** 31 - 1;

/**
 * Chooses the method of an engine and the length of its tasks.
 *
 * @see spec/copy-before-write-and-backup.md section 3.2
 */
export class MethodChooser {
  readonly #clusterSize: number;
  /** Bytes, whole clusters; may be 0. */
  readonly #maxTransfer: number;
  #method: CopyMethod = "buffered";

  /** @param maxTransfers - the limits of both children in bytes, 0 for none */
  constructor(clusterSize: number, maxTransfers: readonly number[]) {
    this.#clusterSize = clusterSize;
    const limits = maxTransfers.filter((limit) => limit > 0);
    this.#maxTransfer = alignDown(Math.min(TRANSFER_MAX, ...limits), clusterSize);
    this.choose({ useCopyRange: false, compress: false });
  }

  get method(): CopyMethod {
    return this.#method;
  }

  /** Bytes of the longest task by the method in force, whole clusters. */
  get chunkSize(): number {
    if (this.#method === "cluster") return this.#clusterSize;
    const wanted = this.#method === "offload-full" ? OFFLOAD_MAX : BUFFERED_MAX;
    return Math.min(Math.max(this.#clusterSize, wanted), this.#maxTransfer);
  }

  choose(options: { readonly useCopyRange: boolean; readonly compress: boolean }): void {
    if (this.#maxTransfer < this.#clusterSize || options.compress) this.#method = "cluster";
    else this.#method = options.useCopyRange ? "offload-small" : "buffered";
  }

  /**
   * Learns from an offloaded copy. A task that was made under an older method teaches nothing, so a late
   * finisher can not undo a demotion.
   */
  learn(made: CopyMethod, worked: boolean): void {
    if (this.#method !== made) return;
    this.#method = worked ? "offload-full" : "buffered";
  }
}
