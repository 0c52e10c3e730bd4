import type { Env } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import { isSafeSize } from "@blocklayer/offsets";
import { REFCOUNT_TABLE_BYTES_MAX } from "../format/constants.ts";
import type { Geometry } from "../format/geometry.ts";
import { highOf, lowOf } from "../format/l2-entry.ts";
import { type RefcountAccess, refcountAccess } from "../format/refcount-block.ts";
import type { HostFile } from "./host-file.ts";
import { Mutex } from "./mutex.ts";
import type { PendingFrees } from "./pending-frees.ts";
import { type CachedTable, TableCache } from "./table-cache.ts";
import type { TableFile } from "./table-file.ts";

/** Bits of a refcount table entry below the offset. */
const RESERVED = 0x1ff;
const HIGH = 2 ** 32;

/** Switches the header to another refcount table, durably. */
export type SwitchRefcountTable = (offset: number, clusters: number) => Promise<void>;

export interface RefcountsOptions {
  readonly env: Env;
  readonly file: HostFile;
  readonly table: TableFile;
  /** Blocks to keep in memory. */
  readonly capacity: number;
  readonly frees: PendingFrees;
  readonly switchTable: SwitchRefcountTable;
}

/**
 * How often each host cluster is referenced. Counts are changed under the allocator's mutex.
 *
 * Blocks may be written at any time: an increase comes before the reference it is for, a decrease after
 * the reference is durably gone. An entry of the table is written when the block that it refers to, and the count of
 * that block's own cluster, are durable.
 *
 * @see spec/qcow2.md section 4
 */
export class Refcounts {
  readonly blocks: TableCache;
  readonly table: TableFile;
  readonly #file: HostFile;
  readonly #geometry: Geometry;
  #access: RefcountAccess;
  readonly #frees: PendingFrees;
  readonly #switchTable: SwitchRefcountTable;
  /** Held by who writes blocks or entries: none is ever written twice at a time. */
  readonly #writing: Mutex;

  constructor({ env, file, table, capacity, frees, switchTable }: RefcountsOptions) {
    this.#file = file;
    this.#geometry = file.geometry;
    this.#access = refcountAccess(file.geometry.refcountBits);
    this.#frees = frees;
    this.#switchTable = switchTable;
    this.#writing = new Mutex(env, "qcow2 counts");
    this.table = table;
    this.blocks = new TableCache({
      tableSize: file.geometry.clusterSize,
      capacity,
      read: (offset, bytes) => file.read(offset, bytes),
      makeRoom: () => this.#writing.run(() => this.#writeBlocks()),
    });
  }

  /** Host offset of a block, 0 where there is none. @throws BlockError `EIO` the entry is damaged */
  blockOffset(index: number): number {
    const low = this.table.low(index);
    const offset = this.table.high(index) * HIGH + low - (low % (RESERVED + 1));
    if (offset === 0) return 0;
    if (!isSafeSize(offset) || offset % this.#geometry.clusterSize !== 0) {
      throw new BlockError(
        "EIO",
        `Refblock offset 0x${offset.toString(16)} unaligned (reftable index: 0x${index.toString(16)})`,
        {
          offset,
          index,
        },
      );
    }
    return offset;
  }

  /** References to a host cluster. */
  async get(cluster: number): Promise<number> {
    const block = await this.#block(this.#blockIndex(cluster));
    return block === undefined ? 0 : this.#access.get(block.bytes, this.#indexInBlock(cluster));
  }

  /** The count of a cluster whose block is in memory; `undefined` if it is not. */
  peek(cluster: number): number | undefined {
    const offset = this.blockOffset(this.#blockIndex(cluster));
    if (offset === 0) return 0;
    const block = this.blocks.peek(offset);
    return block === undefined
      ? undefined
      : this.#access.get(block.bytes, this.#indexInBlock(cluster));
  }

  /**
   * Changes the counts of whole clusters by `delta`; all of them or none.
   *
   * @throws BlockError `EINVAL` a count would be below 0 or above what the width holds
   */
  async change(offset: number, length: number, delta: number): Promise<void> {
    const first = offset / this.#geometry.clusterSize;
    const end = first + length / this.#geometry.clusterSize;
    let cluster = first;
    try {
      for (; cluster < end; cluster += 1) await this.#changeOne(cluster, delta);
    } catch (error) {
      for (let undo = first; undo < cluster; undo += 1) await this.#changeOne(undo, -delta);
      throw error;
    }
  }

  get hasDirty(): boolean {
    return this.blocks.hasDirty || this.table.hasDirty;
  }

  /** Writes all counts as they are now. They are stable after the next flush of the file. */
  write(): Promise<void> {
    return this.#writing.run(() => this.#write());
  }

  /**
   * Makes a block for clusters that have none: all of them are free.
   *
   * @param home - number of a free cluster to put it in: one of those that it counts, or of those that have a block
   * @throws BlockError `EFBIG` the table can not become so large
   * @see spec/qcow2.md section 4.2
   */
  async addBlock(cluster: number, home: number): Promise<void> {
    const index = this.#blockIndex(cluster);
    if (index >= this.table.entries) {
      // It comes with blocks of its own; whoever asks looks again.
      await this.#growTable(index + 1);
      return;
    }
    const offset = home * this.#geometry.clusterSize;
    const bytes = new Uint8Array(this.#geometry.clusterSize);
    if (this.#blockIndex(home) === index) this.#access.set(bytes, this.#indexInBlock(home), 1);
    else await this.#changeOne(home, 1);
    await this.#file.write(offset, bytes, "refcount-block");
    this.#file.metadata.addCluster("refcount-block", offset);
    this.blocks.put(offset, bytes, false);
    this.table.set(index, highOf(offset), lowOf(offset));
  }

  /**
   * Takes blocks that count nothing but themselves from the end of the table.
   *
   * The entries are durably gone before anything of them is used again.
   */
  async dropEmptyBlocks(): Promise<void> {
    const dropped: { readonly index: number; readonly offset: number }[] = [];
    for (let index = this.table.entries - 1; index >= 0; index -= 1) {
      const offset = this.blockOffset(index);
      if (offset === 0) continue;
      if (!(await this.#countsOnlyItself(index, offset))) break;
      dropped.push({ index, offset });
    }
    if (dropped.length === 0) return;
    for (const { index } of dropped) this.table.set(index, 0, 0);
    await this.write();
    await this.#file.flush();
    const { clusterSize } = this.#geometry;
    for (const { index, offset } of dropped) {
      this.blocks.drop(offset, clusterSize);
      this.#file.metadata.deleteCluster("refcount-block", offset);
      // One that counted itself has gone with its count.
      const isElsewhere = this.#blockIndex(offset / clusterSize) !== index;
      if (isElsewhere) {
        this.#frees.addDurable([{ offset, length: clusterSize, discard: "other" }]);
      }
    }
  }

  async #countsOnlyItself(index: number, offset: number): Promise<boolean> {
    const block = await this.#block(index);
    if (block === undefined) return false;
    const own = offset / this.#geometry.clusterSize;
    const first = index * this.#geometry.refcountsPerBlock;
    for (let at = 0; at < this.#geometry.refcountsPerBlock; at += 1) {
      if (first + at !== own && this.#access.get(block.bytes, at) !== 0) return false;
    }
    return true;
  }

  /** Takes the table and the width of counts that the header says now, and forgets all blocks. */
  adopt(offset: number, table: Uint8Array): void {
    this.#access = refcountAccess(this.#geometry.refcountBits);
    this.blocks.clear();
    this.table.replace(offset, table);
  }

  /** The block at an index of the table, for looking only, until the next `await`; `undefined` where there is none. */
  async blockBytes(index: number): Promise<Uint8Array | undefined> {
    return index < this.table.entries ? (await this.#block(index))?.bytes : undefined;
  }

  /** Loads the block of a cluster, if there is one. */
  async load(cluster: number): Promise<void> {
    await this.#block(this.#blockIndex(cluster));
  }

  hasBlock(cluster: number): boolean {
    const index = this.#blockIndex(cluster);
    return index < this.table.entries && this.blockOffset(index) !== 0;
  }

  #blockIndex(cluster: number): number {
    return Math.floor(cluster / this.#geometry.refcountsPerBlock);
  }

  #indexInBlock(cluster: number): number {
    return cluster - this.#blockIndex(cluster) * this.#geometry.refcountsPerBlock;
  }

  async #block(index: number): Promise<CachedTable | undefined> {
    const offset = this.blockOffset(index);
    if (offset === 0) return undefined;
    for (;;) {
      const block = this.blocks.peek(offset);
      if (block !== undefined) return block;
      await this.blocks.load(offset);
    }
  }

  async #changeOne(cluster: number, delta: number): Promise<void> {
    const block = await this.#block(this.#blockIndex(cluster));
    const at = this.#indexInBlock(cluster);
    const value = (block === undefined ? 0 : this.#access.get(block.bytes, at)) + delta;
    if (value < 0 || value > this.#geometry.refcountMax || block === undefined) {
      const what = value < 0 || block === undefined ? "below 0" : "too large";
      throw new BlockError(
        "EINVAL",
        `the reference count of host cluster ${cluster} would be ${what}`,
        {
          cluster,
          value,
          limit: this.#geometry.refcountMax,
        },
      );
    }
    this.#access.set(this.blocks.change(block), at, value);
  }

  async #write(): Promise<void> {
    const hasEntries = this.table.lendDirty();
    let isWritten = false;
    try {
      await this.#writeBlocks();
      if (hasEntries) {
        await this.#file.flush();
        await this.table.writeLent();
      }
      isWritten = true;
    } finally {
      this.table.giveBack(isWritten);
    }
  }

  async #writeBlocks(): Promise<void> {
    const lent = this.blocks.lendDirty();
    let isWritten = false;
    try {
      for (const { table, bytes } of lent) {
        await this.#file.write(table.offset, bytes, "refcount-block");
      }
      isWritten = true;
    } finally {
      this.blocks.giveBack(lent, isWritten);
    }
  }

  /** Puts a larger table, with blocks for itself, behind everything that the present table covers. */
  async #growTable(entriesMin: number): Promise<void> {
    const { clusterSize, refcountsPerBlock } = this.#geometry;
    const layout = tableLayout(this.table.entries, entriesMin, this.#geometry);
    const bytes = layout.tableClusters * clusterSize;
    if (bytes > REFCOUNT_TABLE_BYTES_MAX) {
      throw new BlockError("EFBIG", "the refcount table would be too large", {
        bytes,
        limit: REFCOUNT_TABLE_BYTES_MAX,
      });
    }
    // The new table has entries for blocks that the old one has not yet: what they need comes first.
    await this.#writing.run(() => this.#write());
    const start = this.table.entries * refcountsPerBlock * clusterSize;
    const table = new Uint8Array(bytes);
    table.set(this.table.bytes);
    const used = layout.blocks + layout.tableClusters;
    for (let number = 0; number < layout.blocks; number += 1) {
      const offset = start + number * clusterSize;
      const block = this.#blockOfOnes(
        Math.min(refcountsPerBlock, used - number * refcountsPerBlock),
      );
      await this.#file.write(offset, block, "refcount-block");
      setEntry(table, this.table.entries + number, offset);
    }
    const tableOffset = start + layout.blocks * clusterSize;
    await this.#file.write(tableOffset, table, "refcount-table");
    await this.#file.flush();
    await this.#switchTable(tableOffset, layout.tableClusters);
    const old = { offset: this.table.offset, length: this.table.bytes.length };
    for (let number = 0; number < layout.blocks; number += 1) {
      this.#file.metadata.addCluster("refcount-block", start + number * clusterSize);
    }
    this.table.replace(tableOffset, table);
    this.#frees.addDurable([{ ...old, discard: "other" }]);
  }

  #blockOfOnes(count: number): Uint8Array {
    const block = new Uint8Array(this.#geometry.clusterSize);
    for (let index = 0; index < count; index += 1) this.#access.set(block, index, 1);
    return block;
  }
}

/** How many blocks and clusters a new table needs that has room for `entriesMin` entries, its own blocks, and half as many more. */
export function tableLayout(
  entries: number,
  entriesMin: number,
  { clusterSize, refcountsPerBlock }: Geometry,
): { readonly blocks: number; readonly tableClusters: number } {
  const perCluster = clusterSize / 8;
  let blocks = 1;
  for (;;) {
    const wanted = Math.ceil(Math.max(entriesMin, entries + blocks) * 1.5);
    const tableClusters = Math.ceil(wanted / perCluster);
    const needed = Math.ceil((blocks + tableClusters) / refcountsPerBlock);
    if (needed <= blocks) return { blocks, tableClusters };
    blocks = needed;
  }
}

function setEntry(table: Uint8Array, index: number, offset: number): void {
  const view = new DataView(table.buffer, table.byteOffset);
  view.setUint32(index * 8, highOf(offset));
  view.setUint32(index * 8 + 4, lowOf(offset));
}
