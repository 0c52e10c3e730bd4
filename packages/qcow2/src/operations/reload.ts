import { BlockError } from "@blocklayer/errors";
import { Incompatible } from "../format/constants.ts";
import type { Geometry } from "../format/geometry.ts";
import { readContent, readSnapshots, registerMetadata } from "../image/open-image.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";
import type { Snapshots } from "./snapshots.ts";

/**
 * Reads everything anew: another process had the image meanwhile. Nothing waits to be written, and nobody else uses the
 * image.
 *
 * @throws BlockError `EINVAL` it is another image now, or damaged; `EACCES` marked as damaged and to be written; what
 *   opening reports
 */
export async function reload(image: Qcow2Image, snapshots: Snapshots): Promise<void> {
  const { file, header, geometry, l2, refcounts, allocator, host } = image;
  const sizeBefore = image.size;
  const content = await readContent(file.child, image.isCheckOnly);
  checkSame(image, content.geometry, content.header.incompatible.has(Incompatible.dataFile));
  if (
    content.header.incompatible.has(Incompatible.corrupt) &&
    !image.readOnly &&
    !image.isCheckOnly
  ) {
    const message = "qcow2: Image is corrupt; cannot be opened read/write";
    throw new BlockError("EACCES", message, { node: host.nodeName });
  }
  const { l1Offset, l1Size, refcountTableOffset, refcountTableClusters } = content.header;
  const l1 = new Uint8Array(l1Size * 8);
  if (l1.length > 0) await file.read(l1Offset, l1);
  const table = new Uint8Array(refcountTableClusters * geometry.clusterSize);
  if (table.length > 0) await file.read(refcountTableOffset, table);
  const stored = image.isCheckOnly
    ? { snapshots: [], length: 0 }
    : await readSnapshots(file, content.header);
  // All of it was read: from here on nothing fails.
  header.replace(content);
  image.headerReplaced();
  geometry.adoptRefcountOrder(content.geometry.refcountOrder);
  refcounts.adopt(refcountTableOffset, table);
  l2.cache.clear();
  l2.l1.replace(l1Offset, l1);
  allocator.forgetHints();
  snapshots.adopt(stored.snapshots);
  registerMetadata(image, stored.snapshots);
  const offset = content.header.snapshotTableOffset;
  file.metadata.setExtents("snapshot-table", [{ offset, length: stored.length }]);
  if (image.size !== sizeBefore) host.resized();
}

function checkSame(image: Qcow2Image, now: Geometry, hasDataFile: boolean): void {
  const { geometry, host } = image;
  const isSame =
    now.clusterBits === geometry.clusterBits &&
    now.extendedL2 === geometry.extendedL2 &&
    hasDataFile === image.hasDataFile;
  if (isSame) return;
  const message = "the image file was replaced by another one while the image was inactive";
  throw new BlockError("EINVAL", message, { node: host.nodeName });
}
