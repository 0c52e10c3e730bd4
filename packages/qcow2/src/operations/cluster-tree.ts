import { BlockError } from "@blocklayer/errors";
import { isSafeSize } from "@blocklayer/offsets";
import { COMPRESSED_HIGH, COPIED_HIGH, decodeCompressed, entryOffset } from "../format/l2-entry.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";

/** An L2 table of a tree, as it is in the file. */
export interface TreeTable {
  /** Of its entry in the L1 table. */
  readonly index: number;
  /** Host bytes. */
  readonly offset: number;
  readonly view: DataView<ArrayBuffer>;
}

/** Host clusters that something refers to once; bytes. */
export interface HostExtent {
  readonly offset: number;
  readonly length: number;
}

/**
 * Goes through the L2 tables that an L1 table refers to, one at a time, from the file. Nothing of them is in memory
 * only.
 *
 * @param l1 - the table, in the bytes of the format
 * @throws BlockError `EIO` an entry that can not be
 */
export async function* treeTables(image: Qcow2Image, l1: Uint8Array): AsyncGenerator<TreeTable> {
  const { clusterSize } = image.geometry;
  const entries = new DataView(l1.buffer, l1.byteOffset, l1.byteLength);
  for (let index = 0; index * 8 < l1.length; index += 1) {
    const offset = entryOffset(entries.getUint32(index * 8), entries.getUint32(index * 8 + 4));
    if (offset === 0) continue;
    if (!isSafeSize(offset) || offset % clusterSize !== 0) {
      throw new BlockError("EIO", `L2 table offset 0x${offset.toString(16)} unaligned`, {
        node: image.host.nodeName,
        index,
        offset,
      });
    }
    const bytes = new Uint8Array(clusterSize);
    await image.file.read(offset, bytes);
    yield { index, offset, view: new DataView(bytes.buffer) };
  }
}

/** Returns the host clusters that the entries of a table refer to, those in a row as one. */
export function dataExtents(image: Qcow2Image, { view }: TreeTable): HostExtent[] {
  const { geometry, hasDataFile } = image;
  const { clusterSize, entrySize } = geometry;
  const extents: HostExtent[] = [];
  if (hasDataFile) return extents;
  for (let at = 0; at < view.byteLength; at += entrySize) {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    if ((high & COMPRESSED_HIGH) !== 0) {
      const { offset, length } = decodeCompressed(high, low, geometry);
      const start = geometry.startOfCluster(offset);
      const end = geometry.startOfCluster(offset + length - 1) + clusterSize;
      // Clusters that several pieces share are counted once for each.
      extents.push({ offset: start, length: end - start });
      continue;
    }
    const offset = entryOffset(high, low);
    if (offset === 0) continue;
    const last = extents.at(-1);
    if (last !== undefined && last.offset + last.length === offset) {
      extents[extents.length - 1] = { offset: last.offset, length: last.length + clusterSize };
    } else {
      extents.push({ offset, length: clusterSize });
    }
  }
  return extents;
}

/** Counts everything that an L1 table refers to once more. All or nothing. */
export async function countTree(image: Qcow2Image, l1: Uint8Array): Promise<void> {
  const { refcounts, allocator, geometry } = image;
  await allocator.exclusively(async () => {
    const done: HostExtent[] = [];
    try {
      for await (const table of treeTables(image, l1)) {
        const extents = [
          { offset: table.offset, length: geometry.clusterSize },
          ...dataExtents(image, table),
        ];
        for (const extent of extents) {
          await refcounts.change(extent.offset, extent.length, 1);
          done.push(extent);
        }
      }
    } catch (error) {
      for (const { offset, length } of done) await refcounts.change(offset, length, -1);
      throw error;
    }
  });
}

/** Counts everything that an L1 table refers to down, when it is durable that nothing refers to the table. */
export async function releaseTree(image: Qcow2Image, l1: Uint8Array): Promise<void> {
  const { allocator, geometry } = image;
  for await (const table of treeTables(image, l1)) {
    const frees = [
      ...dataExtents(image, table),
      { offset: table.offset, length: geometry.clusterSize },
    ];
    await allocator.release(frees.map((extent) => ({ ...extent, discard: "snapshot" as const })));
  }
}

/**
 * Makes the marks of the active disk true: an entry is marked as copied if what it refers to has one reference. The
 * tables are written where they are; no slice of them is in memory.
 *
 * @see spec/qcow2.md section 12, step 4
 */
export async function refreshCopied(image: Qcow2Image): Promise<void> {
  const { l2, file, refcounts, geometry } = image;
  const { clusterSize, entrySize } = geometry;
  const markOf = async (high: number, host: number): Promise<number> => {
    const isSingle = (await refcounts.get(host / clusterSize)) === 1;
    return (isSingle ? high | COPIED_HIGH : high & ~COPIED_HIGH) >>> 0;
  };
  for await (const { index, offset, view } of treeTables(image, l2.l1.bytes)) {
    let isChanged = false;
    for (let at = 0; at < view.byteLength; at += entrySize) {
      const high = view.getUint32(at);
      const host = entryOffset(high, view.getUint32(at + 4));
      if ((high & COMPRESSED_HIGH) !== 0 || host === 0) continue;
      const marked = await markOf(high, host);
      if (marked === high) continue;
      view.setUint32(at, marked);
      isChanged = true;
    }
    if (isChanged) await file.write(offset, new Uint8Array(view.buffer), "active-l2");
    const high = l2.l1.high(index);
    const marked = await markOf(high, offset);
    if (marked !== high) l2.l1.set(index, marked, l2.l1.low(index));
  }
}
