import { RequestFlag } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { isCompressed, type L2Words, readsAsZeroes } from "../image/mapping.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";
import { EntryChange } from "./entry-change.ts";

const ALL = 0xffffffff;

/**
 * Makes ranges read as zeroes, or as if they were never written.
 *
 * @see spec/qcow2.md section 9
 */
export class Zeroer {
  readonly #image: Qcow2Image;
  readonly #entries: EntryChange;

  constructor(image: Qcow2Image) {
    this.#image = image;
    this.#entries = new EntryChange(image);
  }

  /**
   * Makes a range read as zeroes without writing data.
   *
   * @param unmaps - host clusters may be given up
   * @throws BlockError `ENOTSUP` a part of a subcluster that holds something else; the caller writes zeroes then
   */
  async zero(offset: number, length: number, unmaps: boolean): Promise<void> {
    const { geometry, header, backing, hasDataFile } = this.#image;
    if (header.header.version === 2) {
      if (backing !== undefined) throw this.#unsupported(offset, length);
      await this.discard(offset, length);
      return;
    }
    const start = geometry.startOfCluster(offset);
    const end = this.#endOfCluster(offset + length);
    await this.#holding(start, end, async () => {
      const from = await this.#widen(offset, -1);
      const to = await this.#widen(offset + length, 1);
      if (hasDataFile && this.#image.isRawDataFile) await this.#zeroData(offset, length, unmaps);
      for (let at = from; at < to; ) {
        const next = Math.min(to, geometry.startOfCluster(at) + geometry.clusterSize);
        await this.#zeroInCluster(at, next, unmaps);
        at = next;
      }
      if (hasDataFile && unmaps) await this.#discardData(offset, length);
    });
  }

  /**
   * Gives up what is stored. The range reads as zeroes then, not as the backing file.
   *
   * @throws BlockError `ENOTSUP` no whole clusters, or version 2 with a backing file
   */
  async discard(offset: number, length: number): Promise<void> {
    const { geometry, header, backing, size, hasDataFile } = this.#image;
    const { clusterSize } = geometry;
    const isV2 = header.header.version === 2;
    const reachesEnd = offset + length >= size;
    const isWhole = offset % clusterSize === 0 && (length % clusterSize === 0 || reachesEnd);
    if (!isWhole || (isV2 && backing !== undefined)) throw this.#unsupported(offset, length);
    const end = this.#endOfCluster(offset + length);
    await this.#holding(offset, end, async () => {
      if (hasDataFile && this.#image.isRawDataFile) await this.#zeroData(offset, length, true);
      for (let at = offset; at < end; at += clusterSize) await this.#discardCluster(at, isV2);
      if (hasDataFile) await this.#discardData(offset, length);
    });
  }

  /** A data file that is the disk by itself shows zeroes where the disk does. */
  #zeroData(offset: number, length: number, unmaps: boolean): Promise<void> {
    const options = unmaps ? { flags: RequestFlag.mayUnmap } : {};
    return this.#image.data.pwriteZeroes(offset, length, options);
  }

  /** Gives up space in a data file that nothing refers to. What fails costs space only. */
  async #discardData(offset: number, length: number): Promise<void> {
    const { data, isRawDataFile, settings } = this.#image;
    if (isRawDataFile || !settings.discards.request) return;
    await data.pdiscard(offset, length).catch(() => undefined);
  }

  #discardCluster(at: number, isV2: boolean): Promise<void> {
    return this.#entries.within(at, (words) => this.#discardEntry(at, words, isV2));
  }

  #discardEntry(at: number, words: L2Words, isV2: boolean): void {
    const isAllocated = isCompressed(words) || this.#entries.hasHost(words);
    if (!isAllocated && (this.#image.backing === undefined || isPlainZero(words))) return;
    if (isV2) this.#entries.unlink(at, words, "request");
    else this.#entries.unlinkToZero(at, words, "request");
  }

  #endOfCluster(offset: number): number {
    const { geometry } = this.#image;
    return geometry.clustersOf(offset) * geometry.clusterSize;
  }

  /** Runs `work` while nobody else changes the mapping of these clusters. */
  async #holding(start: number, end: number, work: () => Promise<void>): Promise<void> {
    const { changing } = this.#image;
    const hold = await changing.acquire(start, end - start, { mode: "exclusive" });
    try {
      await work();
    } finally {
      hold.release();
    }
  }

  /**
   * Moves an end of a range to the border of its subcluster, if the rest of it reads as zeroes anyway.
   *
   * @param direction - where the rest lies: −1 before, 1 behind
   */
  async #widen(offset: number, direction: -1 | 1): Promise<number> {
    const { geometry, mapping, size, backing } = this.#image;
    const { subclusterSize } = geometry;
    const inside = offset % subclusterSize;
    if (inside === 0 || (direction === 1 && offset >= size)) {
      return inside === 0 ? offset : offset - inside + subclusterSize;
    }
    const start = offset - inside;
    for (;;) {
      const run = mapping.find(start, subclusterSize);
      if (run === undefined) {
        await mapping.load(start);
        continue;
      }
      if (!readsAsZeroes(run, start, backing?.size ?? 0)) throw this.#unsupported(start, inside);
      return direction < 0 ? start : start + subclusterSize;
    }
  }

  /** @param at - of a subcluster, as `end`; both in one cluster */
  #zeroInCluster(at: number, end: number, unmaps: boolean): Promise<void> {
    const start = this.#image.geometry.startOfCluster(at);
    return this.#entries.within(start, (words) => this.#zeroEntry(at, end, words, unmaps));
  }

  #zeroEntry(at: number, end: number, words: L2Words, unmaps: boolean): void {
    const { geometry } = this.#image;
    const start = geometry.startOfCluster(at);
    const isWhole = at === start && end === start + geometry.clusterSize;
    if (isWhole) {
      this.#zeroCluster(start, words, unmaps);
      return;
    }
    if (isCompressed(words)) throw this.#unsupported(at, end - at);
    const first = (at - start) / geometry.subclusterSize;
    const count = (end - at) / geometry.subclusterSize;
    const bits = (((2 ** count - 1) * 2 ** first) % 2 ** 32) >>> 0;
    if ((words.zeroes & bits) >>> 0 === bits && (words.allocated & bits) === 0) return;
    this.#entries.markZero(start, words, bits);
  }

  #zeroCluster(start: number, words: L2Words, unmaps: boolean): void {
    const { hasDataFile } = this.#image;
    const hasHost = this.#entries.hasHost(words);
    // The place in a data file is the cluster's own whether it is used or not.
    if (isCompressed(words) || (hasHost && unmaps && !(hasDataFile && this.#image.isRawDataFile))) {
      this.#entries.unlinkToZero(start, words, "request");
    } else if (!this.#isZero(words)) {
      this.#entries.markZero(start, words, ALL);
    }
  }

  #isZero(words: L2Words): boolean {
    if (this.#image.geometry.extendedL2) return words.zeroes === ALL && words.allocated === 0;
    return (words.low & 1) !== 0;
  }

  #unsupported(offset: number, length: number): BlockError {
    const { host } = this.#image;
    return new BlockError("ENOTSUP", "the range can not be zeroed by metadata alone", {
      node: host.nodeName,
      offset,
      length,
    });
  }
}

/** Reads as zeroes, and has no host cluster. */
function isPlainZero({ high, low, zeroes }: L2Words): boolean {
  const hasOffset = (high & 0x00ffffff) !== 0 || (low & 0xfffffe00) !== 0;
  return !hasOffset && ((low & 1) !== 0 || zeroes === ALL);
}
