import { BlockError } from "@blocklayer/errors";
import { writeU64 } from "@blocklayer/offsets";
import { REFCOUNT_TABLE_BYTES_MAX } from "../format/constants.ts";
import { Geometry } from "../format/geometry.ts";
import { refcountAccess } from "../format/refcount-block.ts";
import type { SnapshotRecord } from "../format/snapshot-table.ts";
import { registerMetadata } from "../image/open-image.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";

/**
 * Gives counts another width: writes all of them anew, and then points the header to them. Until then the image is as it
 * was, and what was allocated is leaked at most.
 *
 * Nobody else uses the image meanwhile.
 *
 * @param order - a count will have 2 to this power bits
 * @param tell - called with the bytes of the image file that were dealt with
 * @throws BlockError `EINVAL` a count does not fit; `EFBIG` the table would be too large
 * @see spec/qcow2.md section 15
 */
export async function changeRefcountWidth(
  image: Qcow2Image,
  order: number,
  snapshots: readonly SnapshotRecord[],
  tell: (bytes: number) => void,
): Promise<void> {
  await image.writeback.finish();
  const change = new WidthChange(image, order, tell);
  const table = await change.prepare();
  const old = oldStructures(image);
  const { header, geometry, refcounts, allocator } = image;
  const refcountTableClusters = geometry.clustersOf(table.bytes.length);
  await header.update({
    header: {
      refcountTableOffset: table.offset,
      refcountTableClusters,
      refcountOrder: order,
    },
  });
  geometry.adoptRefcountOrder(order);
  refcounts.adopt(table.offset, table.bytes);
  allocator.forgetHints();
  registerMetadata(image, snapshots);
  await allocator.release(old.map((extent) => ({ ...extent, discard: "other" as const })));
  await image.writeback.finish();
}

interface HostRange {
  /** Bytes. */
  readonly offset: number;
  readonly length: number;
}

/** Where the present table and its blocks are. */
function oldStructures({ refcounts, geometry }: Qcow2Image): HostRange[] {
  const { table } = refcounts;
  const ranges: HostRange[] = [{ offset: table.offset, length: table.bytes.length }];
  for (let index = 0; index < table.entries; index += 1) {
    const offset = refcounts.blockOffset(index);
    if (offset !== 0) ranges.push({ offset, length: geometry.clusterSize });
  }
  return ranges;
}

class WidthChange {
  readonly #image: Qcow2Image;
  /** Sizes as they will be. */
  readonly #target: Geometry;
  readonly #tell: (bytes: number) => void;
  /** Host offsets of the new blocks. */
  readonly #homes: number[] = [];
  #table: HostRange = { offset: 0, length: 0 };

  constructor(image: Qcow2Image, refcountOrder: number, tell: (bytes: number) => void) {
    const { clusterBits, extendedL2 } = image.geometry;
    this.#image = image;
    this.#target = new Geometry({ clusterBits, extendedL2, refcountOrder });
    this.#tell = tell;
  }

  /** Writes the new blocks and the new table, durably. */
  async prepare(): Promise<{ readonly offset: number; readonly bytes: Uint8Array }> {
    const { file } = this.#image;
    try {
      const indices = await this.#reserve();
      const bytes = new Uint8Array(this.#table.length);
      for (const [number, index] of indices.entries()) {
        const home = this.#homes[number] ?? 0;
        await file.write(home, await this.#block(index), "refcount-block");
        writeU64(bytes, index * 8, home);
      }
      await file.write(this.#table.offset, bytes, "refcount-table");
      await file.flush();
      return { offset: this.#table.offset, bytes };
    } catch (error) {
      this.#abandon();
      throw error;
    }
  }

  /** Allocates until there is room for the counts of what was allocated as well. Returns which blocks are needed. */
  async #reserve(): Promise<readonly number[]> {
    const { geometry } = this.#image;
    for (;;) {
      const indices = await this.#indices();
      const missing = indices.length - this.#homes.length;
      const clusters = geometry.clustersOf(((indices.at(-1) ?? 0) + 1) * 8);
      const isLarge = this.#table.length >= clusters * geometry.clusterSize;
      if (missing <= 0 && isLarge) return indices;
      if (missing > 0) await this.#addHomes(missing);
      if (!isLarge) await this.#moveTable(clusters);
    }
  }

  async #addHomes(count: number): Promise<void> {
    const { allocator, geometry } = this.#image;
    const offset = await allocator.allocate(count);
    for (let number = 0; number < count; number += 1) {
      this.#homes.push(offset + number * geometry.clusterSize);
    }
  }

  async #moveTable(clusters: number): Promise<void> {
    const { allocator, geometry } = this.#image;
    const bytes = clusters * geometry.clusterSize;
    if (bytes > REFCOUNT_TABLE_BYTES_MAX) {
      const context = { bytes, limit: REFCOUNT_TABLE_BYTES_MAX };
      throw new BlockError("EFBIG", "the refcount table would be too large", context);
    }
    const { offset, length } = this.#table;
    this.#table = { offset: await allocator.allocate(clusters), length: bytes };
    if (length > 0) allocator.abandon(offset, length);
  }

  /** The blocks, by index in the new table, that have to be there for the present counts. */
  async #indices(): Promise<readonly number[]> {
    const { refcounts, geometry } = this.#image;
    const { refcountsPerBlock, clusterSize } = geometry;
    const access = refcountAccess(geometry.refcountBits);
    const { refcountMax, refcountsPerBlock: perBlock, refcountBits } = this.#target;
    const indices = new Set<number>();
    for (let block = 0; block < refcounts.table.entries; block += 1) {
      const bytes = await refcounts.blockBytes(block);
      if (bytes === undefined) continue;
      const first = block * refcountsPerBlock;
      for (let at = 0; at < refcountsPerBlock; at += 1) {
        const count = access.get(bytes, at);
        if (count === 0) continue;
        if (count > refcountMax) {
          const offset = (first + at) * clusterSize;
          const what = `Cannot decrease refcount entry width to ${refcountBits} bits`;
          const why = `Cluster at offset 0x${offset.toString(16)} has a refcount of ${count}`;
          throw new BlockError("EINVAL", `${what}: ${why}`, { offset, count, limit: refcountMax });
        }
        indices.add(Math.floor((first + at) / perBlock));
      }
    }
    return [...indices].sort((one, two) => one - two);
  }

  /** A new block, with the present counts. */
  async #block(index: number): Promise<Uint8Array> {
    const { refcounts, geometry } = this.#image;
    const { refcountsPerBlock, clusterSize } = geometry;
    const { refcountsPerBlock: perBlock, refcountBits } = this.#target;
    const from = refcountAccess(geometry.refcountBits);
    const to = refcountAccess(refcountBits);
    const block = new Uint8Array(clusterSize);
    const first = index * perBlock;
    for (let cluster = first; cluster < first + perBlock; ) {
      const source = Math.floor(cluster / refcountsPerBlock);
      const end = Math.min(first + perBlock, (source + 1) * refcountsPerBlock);
      const bytes = await refcounts.blockBytes(source);
      for (; bytes !== undefined && cluster < end; cluster += 1) {
        const count = from.get(bytes, cluster % refcountsPerBlock);
        if (count > 0) to.set(block, cluster - first, count);
      }
      cluster = end;
    }
    this.#tell((first + perBlock) * clusterSize);
    return block;
  }

  #abandon(): void {
    const { allocator, geometry } = this.#image;
    for (const home of this.#homes) allocator.abandon(home, geometry.clusterSize);
    if (this.#table.length > 0) allocator.abandon(this.#table.offset, this.#table.length);
  }
}
