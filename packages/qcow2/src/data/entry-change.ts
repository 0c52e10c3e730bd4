import {
  COPIED_HIGH,
  decodeCompressed,
  entryOffset,
  highOf,
  lowOf,
  ZERO_LOW,
} from "../format/l2-entry.ts";
import { isCompressed, type L2Words } from "../image/mapping.ts";
import type { DiscardClass } from "../image/pending-frees.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";

const ALL = 0xffffffff;

/**
 * Changes of L2 entries. Each is one synchronous step: the new entry, and the old host cluster among those that
 * wait to be freed. Callers hold the guest range of the cluster, and have its table in memory and owned.
 *
 * @see spec/qcow2.md sections 6.3, 6.4 and 9
 */
export class EntryChange {
  readonly #image: Qcow2Image;

  constructor(image: Qcow2Image) {
    this.#image = image;
  }

  /** Returns the entry of a guest offset, whose table may be changed. It may be out of memory again by then. */
  prepare(offset: number): Promise<L2Words> {
    return this.within(offset, (words) => words);
  }

  /**
   * Calls `change` with the entry of a guest offset in the turn in which it is in memory, in a table that may be
   * changed: a turn later others may have taken its place in the cache.
   */
  async within<T>(offset: number, change: (words: L2Words) => T): Promise<T> {
    const { l2, mapping } = this.#image;
    for (;;) {
      await l2.ensureOwn(offset);
      const words = mapping.words(offset);
      if (words !== undefined && l2.isOwn(offset)) return change(words);
      await l2.load(offset);
    }
  }

  /** Whether an entry has a host cluster of its own format: not compressed. */
  hasHost(words: L2Words): boolean {
    if (isCompressed(words)) return false;
    return entryOffset(words.high, words.low) !== 0 || this.#isStartOfDataFile(words);
  }

  /**
   * The cluster is at `host` now, with these subclusters in it.
   *
   * @param allocated - bits of subclusters; of an image without them not looked at
   * @param isKept - the host cluster is the one that it had
   */
  link(offset: number, old: L2Words, host: number, allocated: number, isKept: boolean): void {
    const high = (highOf(host) | COPIED_HIGH) >>> 0;
    const before = isKept ? old.allocated : 0;
    // The zero bits of what is written go, those of the others stay; a compressed cluster has none.
    const zeroes = isCompressed(old) ? 0 : old.zeroes & ~allocated;
    this.#image.l2.set(offset, high, lowOf(host), zeroes, before | allocated);
    if (!isKept) this.#free(old, "never");
  }

  /** The cluster is compressed now. */
  linkCompressed(offset: number, old: L2Words, high: number, low: number): void {
    this.#image.l2.set(offset, high, low);
    this.#free(old, "never");
  }

  /** The cluster reads as zeroes and has no host cluster any more. */
  unlinkToZero(offset: number, old: L2Words, discard: DiscardClass): void {
    if (this.#image.geometry.extendedL2) this.#image.l2.set(offset, 0, 0, ALL, 0);
    else this.#image.l2.set(offset, 0, ZERO_LOW);
    this.#free(old, discard);
  }

  /** The backing file answers for the cluster. */
  unlink(offset: number, old: L2Words, discard: DiscardClass): void {
    this.#image.l2.set(offset, 0, 0);
    this.#free(old, discard);
  }

  /** Subclusters read as zeroes; the host cluster stays. */
  markZero(offset: number, old: L2Words, subclusters: number): void {
    if (this.#image.geometry.extendedL2) {
      const { zeroes, allocated } = old;
      this.#image.l2.set(offset, old.high, old.low, zeroes | subclusters, allocated & ~subclusters);
    } else {
      this.#image.l2.set(offset, old.high, old.low | ZERO_LOW);
    }
  }

  #isStartOfDataFile({ high }: L2Words): boolean {
    return this.#image.hasDataFile && (high & COPIED_HIGH) !== 0;
  }

  #free(old: L2Words, discard: DiscardClass): void {
    const { geometry, frees, hasDataFile } = this.#image;
    const { clusterSize } = geometry;
    if (hasDataFile) return;
    if (isCompressed(old)) {
      const { offset, length } = decodeCompressed(old.high, old.low, geometry);
      const start = geometry.startOfCluster(offset);
      const end = geometry.startOfCluster(offset + length - 1) + clusterSize;
      frees.add({ offset: start, length: end - start, discard });
      return;
    }
    const host = entryOffset(old.high, old.low);
    if (host !== 0) frees.add({ offset: host, length: clusterSize, discard });
  }
}
