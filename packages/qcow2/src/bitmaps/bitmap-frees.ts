import { BlockError } from "@blocklayer/errors";
import { alignUp } from "@blocklayer/offsets";
import type { BitmapEntry } from "../format/bitmap-directory.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";
import type { HostExtent } from "../operations/cluster-tree.ts";
import { BitmapTable } from "./bitmap-content.ts";

/**
 * Gives back what bitmaps and their directory took, when it is durable that nothing refers to it.
 *
 * What cannot be theirs stays, and so does what a damaged table refers to: that is leaked, and told.
 */
export async function freeBitmaps(
  image: Qcow2Image,
  entries: readonly BitmapEntry[],
  directory: HostExtent,
): Promise<void> {
  await free(image, directory);
  for (const entry of entries) {
    try {
      await freeOne(image, entry);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      const what = `clusters of bitmap '${entry.name}' are leaked: ${error.message}`;
      image.host.warn(what);
    }
  }
}

async function freeOne(image: Qcow2Image, entry: BitmapEntry): Promise<void> {
  const { clusterSize } = image.geometry;
  const table = new BitmapTable(image, entry);
  let run = { offset: 0, length: 0 };
  for (let index = 0; index < entry.tableSize; index += 1) {
    const place = await table.cluster(index);
    if (typeof place !== "number") continue;
    if (place === run.offset + run.length) {
      run = { offset: run.offset, length: run.length + clusterSize };
      continue;
    }
    await free(image, run);
    run = { offset: place, length: clusterSize };
  }
  await free(image, run);
  await free(image, { offset: entry.tableOffset, length: entry.tableSize * 8 });
}

async function free(image: Qcow2Image, { offset, length }: HostExtent): Promise<void> {
  const { file, frees, geometry, refcounts } = image;
  const { clusterSize } = geometry;
  const end = offset + alignUp(length, clusterSize);
  for (let at = offset; at < end; at += clusterSize) {
    const isCounted = (await refcounts.get(at / clusterSize)) > 0;
    if (isCounted && file.metadata.find(at, clusterSize) === undefined) continue;
    throw new BlockError("EIO", "they are not counted, or hold other metadata", { offset: at });
  }
  if (end > offset) frees.addDurable([{ offset, length: end - offset, discard: "other" }]);
}
