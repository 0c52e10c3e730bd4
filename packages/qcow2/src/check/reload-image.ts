import { registerMetadata } from "../image/open-image.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";
import type { TableExtent } from "./l1-walk.ts";
import type { SnapshotReplacement } from "./snapshot-scan.ts";

/** Reads the tables that an image keeps in memory anew, and forgets the others: the file was changed under it. */
export async function reloadImage(
  image: Qcow2Image,
  snapshots: readonly TableExtent[],
  snapshotTable: TableExtent | undefined,
): Promise<void> {
  const { file, geometry, header, l2, refcounts, allocator } = image;
  const { l1Offset, l1Size, refcountTableOffset, refcountTableClusters } = header.header;
  const l1 = new Uint8Array(l1Size * 8);
  if (l1.length > 0) await file.read(l1Offset, l1);
  const table = new Uint8Array(refcountTableClusters * geometry.clusterSize);
  if (table.length > 0) await file.read(refcountTableOffset, table);
  l2.cache.clear();
  refcounts.blocks.clear();
  l2.l1.replace(l1Offset, l1);
  refcounts.table.replace(refcountTableOffset, table);
  allocator.forgetHints();
  registerMetadata(
    image,
    snapshots.map(({ offset, length }) => ({ l1Offset: offset, l1Size: length / 8 })),
  );
  const tables = snapshotTable === undefined ? [] : [snapshotTable];
  file.metadata.setExtents("snapshot-table", tables);
}

/** Writes another table of snapshots and points the header to it. Returns where it is; the old one is no longer used. */
export async function replaceSnapshots(
  image: Qcow2Image,
  { bytes, count }: SnapshotReplacement,
): Promise<TableExtent> {
  const { allocator, file, geometry, header, writeback } = image;
  let offset = 0;
  if (count > 0) {
    offset = await allocator.allocate(geometry.clustersOf(bytes.length));
    await file.write(offset, bytes, "snapshot-table");
    await writeback.finish();
  }
  await header.setSnapshots(count, offset);
  return { offset, length: bytes.length };
}
