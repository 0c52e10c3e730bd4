import type { Env } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import { HOST_OFFSET_MAX } from "../format/constants.ts";
import { compressedOffsetMax } from "../format/l2-entry.ts";
import type { HostFile } from "./host-file.ts";
import { Mutex } from "./mutex.ts";
import type { DiscardClass, PendingFree, PendingFrees } from "./pending-frees.ts";
import type { Refcounts } from "./refcounts.ts";

export interface AllocatorOptions {
  readonly env: Env;
  readonly file: HostFile;
  readonly refcounts: Refcounts;
  readonly frees: PendingFrees;
  /** Whether host space of this class is given back. */
  readonly discards: (discard: DiscardClass) => boolean;
}

/**
 * Gives out host clusters and takes them back. What it gives out is counted before anything refers to it.
 *
 * @see spec/qcow2.md section 4.3
 */
export class Allocator {
  readonly refcounts: Refcounts;
  readonly #file: HostFile;
  readonly #frees: PendingFrees;
  readonly #discards: (discard: DiscardClass) => boolean;
  readonly #mutex: Mutex;
  /** Number of the cluster at which the search begins: every one before it is in use. */
  #hint = 0;
  /** Where compressed data may go on within a cluster; 0 for nowhere. */
  #compressedEnd = 0;

  constructor({ env, file, refcounts, frees, discards }: AllocatorOptions) {
    this.refcounts = refcounts;
    this.#file = file;
    this.#frees = frees;
    this.#discards = discards;
    this.#mutex = new Mutex(env, "qcow2 allocator");
  }

  get #clusterSize(): number {
    return this.#file.geometry.clusterSize;
  }

  /** Runs work that looks at counts or changes them in several steps. */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    return this.#mutex.run(work);
  }

  /**
   * Allocates so many clusters in a row.
   *
   * @returns their host offset
   * @throws BlockError `EFBIG` the file can not become so large; what reading and writing counts reports
   */
  allocate(clusters: number): Promise<number> {
    return this.#mutex.run(async () => {
      const first = await this.#find(clusters, HOST_OFFSET_MAX);
      await this.#take(first, clusters);
      return first * this.#clusterSize;
    });
  }

  /**
   * Allocates up to so many clusters at a given place.
   *
   * @returns how many of them it got; 0 when the first one is in use
   */
  allocateAt(offset: number, clusters: number): Promise<number> {
    return this.#mutex.run(async () => {
      const first = offset / this.#clusterSize;
      let count = 0;
      while (count < clusters && (await this.#isFreeAt(first + count))) count += 1;
      if (count > 0) await this.#take(first, count);
      return count;
    });
  }

  /**
   * Allocates bytes for compressed data, if possible behind the last ones. Every cluster touched is counted once
   * more.
   *
   * @param length - bytes, at most a cluster
   * @returns the host offset
   */
  allocateBytes(length: number): Promise<number> {
    return this.#mutex.run(async () => {
      const offset = (await this.#continueCompressed(length)) ?? (await this.#freshCompressed());
      const size = this.#clusterSize;
      const first = Math.floor(offset / size);
      const end = Math.ceil((offset + length) / size);
      await this.refcounts.change(first * size, (end - first) * size, 1);
      this.#compressedEnd = offset + length;
      return offset;
    });
  }

  /** Gives back what was allocated and never referred to. */
  abandon(offset: number, length: number): void {
    this.#frees.addDurable([{ offset, length, discard: "never" }]);
  }

  /**
   * Counts down what is durably unreferenced, and gives back the host space of what is free then. Discards come
   * first: a cluster that is free is never discarded any more.
   */
  async release(frees: readonly PendingFree[]): Promise<void> {
    await this.#mutex.run(async () => {
      for (const [index, free] of frees.entries()) {
        try {
          await this.#release(free);
        } catch (error) {
          this.#frees.addDurable(frees.slice(index));
          throw error;
        }
      }
    });
  }

  /**
   * Returns where the last host cluster that is in use ends.
   *
   * @param fileSize - bytes: nothing behind it is looked at
   */
  endOfUsed(fileSize: number): Promise<number> {
    return this.#mutex.run(async () => {
      let cluster = Math.ceil(fileSize / this.#clusterSize);
      while (cluster > 0 && (await this.refcounts.get(cluster - 1)) === 0) cluster -= 1;
      return cluster * this.#clusterSize;
    });
  }

  /** Forgets where free clusters may be: counts were changed as a whole. */
  forgetHints(): void {
    this.#hint = 0;
    this.#compressedEnd = 0;
  }

  async #release({ offset, length, discard }: PendingFree): Promise<void> {
    if (this.#discards(discard)) await this.#discardSingles(offset, length);
    await this.refcounts.change(offset, length, -1);
    const size = this.#clusterSize;
    for (let at = offset; at < offset + length; at += size) {
      if ((await this.refcounts.get(at / size)) > 0) continue;
      this.#hint = Math.min(this.#hint, at / size);
      if (Math.floor((this.#compressedEnd - 1) / size) === at / size) this.#compressedEnd = 0;
    }
  }

  /** Discards the clusters that have one reference left. What fails costs space only. */
  async #discardSingles(offset: number, length: number): Promise<void> {
    const size = this.#clusterSize;
    let start = -1;
    for (let at = offset; at <= offset + length; at += size) {
      const isSingle = at < offset + length && (await this.refcounts.get(at / size)) === 1;
      if (isSingle && start < 0) start = at;
      if (isSingle || start < 0) continue;
      const run = { start, length: at - start };
      start = -1;
      await this.#file.child.pdiscard(run.start, run.length).catch(() => undefined);
    }
  }

  /** Finds the first run of free clusters from the hint on, which all have counts. */
  async #find(clusters: number, offsetMax: number): Promise<number> {
    const start = this.#hint;
    let first = start;
    let free: number | undefined;
    for (let count = 0; count < clusters; ) {
      const cluster = first + count;
      if ((cluster + 1) * this.#clusterSize > offsetMax) {
        throw new BlockError("EFBIG", "the image file would be too large", {
          clusters,
          limit: offsetMax,
        });
      }
      if (!this.refcounts.hasBlock(cluster)) {
        // The block goes in front of the run, so that the run can be longer than what one block counts.
        await this.refcounts.addBlock(cluster, first);
        count = 0;
      } else if (await this.#isFree(cluster)) {
        free ??= cluster;
        count += 1;
      } else {
        first = cluster + 1;
        count = 0;
      }
    }
    // All before the first free one are in use: the next search need not look at them.
    if (this.#hint === start) this.#hint = free ?? start;
    return first;
  }

  /** Where no counts are, nothing is given out by place. */
  async #isFreeAt(cluster: number): Promise<boolean> {
    return this.refcounts.hasBlock(cluster) && (await this.#isFree(cluster));
  }

  async #isFree(cluster: number): Promise<boolean> {
    return (this.refcounts.peek(cluster) ?? (await this.refcounts.get(cluster))) === 0;
  }

  async #take(first: number, clusters: number): Promise<void> {
    const size = this.#clusterSize;
    await this.refcounts.change(first * size, clusters * size, 1);
    if (first <= this.#hint) this.#hint = first + clusters;
  }

  /** Behind the last compressed data, as far as the cluster goes or the next one is free. */
  async #continueCompressed(length: number): Promise<number | undefined> {
    const offset = this.#compressedEnd;
    const size = this.#clusterSize;
    if (offset === 0 || offset % size === 0) return undefined;
    const cluster = Math.floor(offset / size);
    const count = await this.refcounts.get(cluster);
    if (count === 0 || count >= this.#file.geometry.refcountMax) return undefined;
    if (offset + length > compressedOffsetMax(this.#file.geometry)) return undefined;
    const isInside = offset + length <= (cluster + 1) * size;
    return isInside || (await this.#isFreeAt(cluster + 1)) ? offset : undefined;
  }

  async #freshCompressed(): Promise<number> {
    const first = await this.#find(1, compressedOffsetMax(this.#file.geometry));
    return first * this.#clusterSize;
  }
}
