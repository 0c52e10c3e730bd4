import type { BitmapContent } from "@blocklayer/driver";
import { divideUp, writeU32 } from "@blocklayer/offsets";
import { type BitmapEntry, bitmapTableEntries } from "../format/bitmap-directory.ts";
import { highOf, lowOf } from "../format/l2-entry.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";
import type { HostExtent } from "../operations/cluster-tree.ts";
import { bitsOf, clearPadding, serializedLengthOf } from "./bitmap-content.ts";

/** Bytes of data that are collected for one write. */
const BATCH_BYTES: number = 2 ** 20;

/** What a bitmap is besides its bits. */
export type BitmapTraits = Pick<BitmapEntry, "name" | "granularityBits" | "inUse" | "auto">;

/**
 * Writes bitmaps, their tables and a directory to new clusters, to which nothing refers yet.
 *
 * Memory: 1 MiB of data (one cluster if that is more), and a table of 8 MiB at most.
 */
export class BitmapWriter {
  readonly #image: Qcow2Image;
  #taken: HostExtent[] = [];

  constructor(image: Qcow2Image) {
    this.#image = image;
  }

  /** Writes a bitmap. @param content - `undefined` for one without bits */
  async write(traits: BitmapTraits, content: BitmapContent | undefined): Promise<BitmapEntry> {
    const { geometry, size, file } = this.#image;
    const tableSize = bitmapTableEntries(size, traits.granularityBits, geometry);
    const table = new Uint8Array(tableSize * 8);
    if (content !== undefined) {
      await this.#writeData(bitsOf(size, traits.granularityBits), table, content);
    }
    const tableOffset = await this.#allocate(table.length);
    await file.write(tableOffset, table);
    return { ...traits, tableOffset, tableSize };
  }

  /** Writes a directory. Returns its host offset. */
  async writeDirectory(bytes: Uint8Array): Promise<number> {
    const offset = await this.#allocate(bytes.length);
    await this.#image.file.write(offset, bytes);
    return offset;
  }

  /** Something refers to what was written: it stays. */
  keep(): void {
    this.#taken = [];
  }

  /** Gives back what was allocated and not kept. */
  abandon(): void {
    for (const { offset, length } of this.#taken) this.#image.allocator.abandon(offset, length);
    this.#taken = [];
  }

  async #writeData(bits: number, table: Uint8Array, content: BitmapContent): Promise<void> {
    const { clusterSize } = this.#image.geometry;
    const total = serializedLengthOf(bits);
    const perBatch = Math.max(1, Math.floor(BATCH_BYTES / clusterSize));
    const entries = table.length / 8;
    const buffer = new Uint8Array(Math.min(perBatch, entries) * clusterSize);
    for (let first = 0; first < entries; first += perBatch) {
      const dirty: number[] = [];
      for (let index = first; index < Math.min(entries, first + perBatch); index += 1) {
        const position = index * clusterSize;
        const part = await content.read(position, Math.min(clusterSize, total - position));
        if (part === undefined || part.every((byte) => byte === 0)) continue;
        const start = dirty.length * clusterSize;
        const cluster = buffer.subarray(start, start + clusterSize);
        cluster.fill(0);
        cluster.set(part);
        clearPadding(cluster, position, bits);
        dirty.push(index);
      }
      await this.#writeBatch(buffer.subarray(0, dirty.length * clusterSize), dirty, table);
    }
  }

  async #writeBatch(
    bytes: Uint8Array,
    indices: readonly number[],
    table: Uint8Array,
  ): Promise<void> {
    if (indices.length === 0) return;
    const { file, geometry } = this.#image;
    const home = await this.#allocate(bytes.length);
    await file.write(home, bytes);
    for (const [number, index] of indices.entries()) {
      const offset = home + number * geometry.clusterSize;
      writeU32(table, index * 8, highOf(offset));
      writeU32(table, index * 8 + 4, lowOf(offset));
    }
  }

  async #allocate(bytes: number): Promise<number> {
    const { allocator, geometry } = this.#image;
    const clusters = divideUp(bytes, geometry.clusterSize);
    const offset = await allocator.allocate(clusters);
    this.#taken.push({ offset, length: clusters * geometry.clusterSize });
    return offset;
  }
}
