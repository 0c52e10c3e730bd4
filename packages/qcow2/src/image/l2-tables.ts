import type { Env } from "@blocklayer/env";
import { assert } from "@blocklayer/errors";
import { writeU32 } from "@blocklayer/offsets";
import { RangeLock } from "@blocklayer/range-lock";
import type { Geometry } from "../format/geometry.ts";
import { COPIED_HIGH, entryOffset, highOf, isCopied, lowOf } from "../format/l2-entry.ts";
import type { Allocator } from "./allocator.ts";
import type { HostFile } from "./host-file.ts";
import type { PendingFrees } from "./pending-frees.ts";
import { type CachedTable, TableCache } from "./table-cache.ts";
import type { TableFile } from "./table-file.ts";

export interface L2TablesOptions {
  readonly env: Env;
  readonly file: HostFile;
  readonly l1: TableFile;
  readonly allocator: Allocator;
  readonly frees: PendingFrees;
  /** Bytes: what is read and kept of a table at a time. A power of two from 512 to a cluster. */
  readonly sliceSize: number;
  /** Slices to keep in memory. */
  readonly capacity: number;
  readonly makeRoom: () => Promise<void>;
}

/**
 * The L2 tables of the active disk, in slices, by guest offset.
 *
 * @see spec/qcow2.md sections 3 and 6.1
 */
export class L2Tables {
  readonly cache: TableCache;
  readonly l1: TableFile;
  /** Entries of a slice; kept apart for the request path. */
  #sliceEntries: number;
  readonly #file: HostFile;
  readonly #geometry: Geometry;
  readonly #allocator: Allocator;
  readonly #frees: PendingFrees;
  /** By number of the L1 entry: held by who makes a table. */
  readonly #making: RangeLock;

  constructor(options: L2TablesOptions) {
    const { env, file, l1, allocator, frees, sliceSize, capacity, makeRoom } = options;
    this.#file = file;
    this.#geometry = file.geometry;
    this.#allocator = allocator;
    this.#frees = frees;
    this.#making = new RangeLock(env, "qcow2 L2 table");
    this.l1 = l1;
    this.#sliceEntries = sliceSize / file.geometry.entrySize;
    this.cache = new TableCache({
      tableSize: sliceSize,
      capacity,
      read: (offset, bytes) => file.read(offset, bytes),
      makeRoom,
    });
  }

  /** Bytes of a slice. */
  get sliceSize(): number {
    return this.cache.tableSize;
  }

  /** Takes another size of slices; nothing is dirty. */
  reshape(sliceSize: number): void {
    this.cache.reshape(sliceSize);
    this.#sliceEntries = sliceSize / this.#geometry.entrySize;
  }

  /** Host offset of the table for an L1 entry, 0 for none. */
  tableOffset(l1Index: number): number {
    return entryOffset(this.l1.high(l1Index), this.l1.low(l1Index));
  }

  /** Whether the table for a guest offset is there and referenced by the active disk alone. */
  isOwn(offset: number): boolean {
    const index = this.#geometry.l1Index(offset);
    return isCopied(this.l1.high(index)) && this.tableOffset(index) !== 0;
  }

  /**
   * The slice with the entry for a guest offset; `null` where there is no table, `undefined` where it is not in
   * memory. Of use until the next `await`.
   */
  peek(offset: number): CachedTable | null | undefined {
    const table = this.tableOffset(this.#geometry.l1Index(offset));
    if (table === 0) return null;
    return this.cache.peek(table + this.#sliceOffset(offset));
  }

  /** Brings the slice for a guest offset into memory; look it up again then. */
  async load(offset: number): Promise<void> {
    const index = this.#geometry.l1Index(offset);
    const table = this.tableOffset(index);
    if (table === 0) return;
    if (table % this.#geometry.clusterSize !== 0) {
      const what = `L2 table offset 0x${table.toString(16)} unaligned (L1 index: 0x${index.toString(16)})`;
      await this.#file.onCorruption(what, table, this.#geometry.clusterSize);
    }
    await this.cache.load(table + this.#sliceOffset(offset));
  }

  /**
   * Changes the entry for a guest offset, whose slice is in memory and whose table is the disk's own.
   *
   * @param zeroes - upper half of the second word of an extended entry
   * @param allocated - its lower half
   */
  set(offset: number, high: number, low: number, zeroes = 0, allocated = 0): void {
    const slice = this.peek(offset);
    assert(slice !== undefined && slice !== null, "an entry that is changed is in memory");
    assert(this.isOwn(offset), "an entry that is changed is in a table of the disk's own");
    const bytes = this.cache.change(slice);
    const at = this.indexInSlice(offset) * this.#geometry.entrySize;
    writeU32(bytes, at, high >>> 0);
    writeU32(bytes, at + 4, low >>> 0);
    if (!this.#geometry.extendedL2) return;
    writeU32(bytes, at + 8, zeroes >>> 0);
    writeU32(bytes, at + 12, allocated >>> 0);
  }

  /** Index of the entry for a guest offset in its slice. */
  indexInSlice(offset: number): number {
    return this.#geometry.l2Index(offset) % this.#sliceEntries;
  }

  /** Guest bytes from `offset` to the end of what its slice covers. */
  bytesLeftInSlice(offset: number): number {
    const span = this.#sliceEntries * this.#geometry.clusterSize;
    return span - (offset % span);
  }

  /**
   * Makes sure that the table for a guest offset is there and may be changed: a new one of zeroes, or a copy of one
   * that snapshots refer to as well.
   */
  async ensureOwn(offset: number): Promise<void> {
    if (this.isOwn(offset)) return;
    const index = this.#geometry.l1Index(offset);
    const hold = await this.#making.acquire(index, 1, { mode: "exclusive" });
    try {
      if (!this.isOwn(offset)) await this.#make(index);
    } finally {
      hold.release();
    }
  }

  async #make(index: number): Promise<void> {
    const { clusterSize } = this.#geometry;
    const old = this.tableOffset(index);
    const home = await this.#allocator.allocate(1);
    try {
      const bytes = old === 0 ? new Uint8Array(clusterSize) : await this.#copy(index);
      // Nothing refers to it yet: its content is stable with the flush that comes before references are written.
      await this.#file.write(home, bytes);
    } catch (error) {
      this.#allocator.abandon(home, clusterSize);
      throw error;
    }
    this.#file.metadata.addCluster("active-l2", home);
    this.l1.set(index, (highOf(home) | COPIED_HIGH) >>> 0, lowOf(home));
    if (old === 0) return;
    this.#file.metadata.deleteCluster("active-l2", old);
    this.cache.drop(old, clusterSize);
    this.#frees.add({ offset: old, length: clusterSize, discard: "other" });
  }

  /** A table that is shared is never dirty, so the file has all of it. */
  async #copy(index: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.#geometry.clusterSize);
    const offset = this.tableOffset(index);
    if (offset % bytes.length !== 0) await this.load(index * this.#geometry.l1Span);
    await this.#file.read(offset, bytes);
    return bytes;
  }

  #sliceOffset(offset: number): number {
    const index = this.#geometry.l2Index(offset);
    return Math.floor(index / this.#sliceEntries) * this.sliceSize;
  }
}
