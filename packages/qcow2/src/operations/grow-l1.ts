import { BlockError } from "@blocklayer/errors";
import { L1_BYTES_MAX } from "../format/constants.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";

/**
 * Gives the active L1 table room for so many entries, at another place. Nobody else uses the image meanwhile.
 *
 * @throws BlockError `EFBIG` more than 32 MiB; then nothing was changed
 * @see spec/qcow2.md section 10
 */
export async function growL1(image: Qcow2Image, entries: number): Promise<void> {
  const { l2, file, allocator, frees, header, geometry } = image;
  const { l1 } = l2;
  if (entries <= l1.entries) return;
  const bytes = entries * 8;
  if (bytes > L1_BYTES_MAX) {
    throw new BlockError("EFBIG", "the L1 table would be too large", {
      node: image.host.nodeName,
      bytes,
      limit: L1_BYTES_MAX,
    });
  }
  // What the old table refers to is in the file; so the new one can be written as memory has it.
  await image.writeback.flush();
  const clusters = geometry.clustersOf(bytes);
  const home = await allocator.allocate(clusters);
  const old = {
    offset: l1.offset,
    length: geometry.clustersOf(l1.bytes.length) * geometry.clusterSize,
  };
  const table = new Uint8Array(bytes);
  table.set(l1.bytes);
  try {
    await file.write(home, table);
    await image.writeback.flush();
  } catch (error) {
    allocator.abandon(home, clusters * geometry.clusterSize);
    throw error;
  }
  // If this fails nobody knows which table counts: then nothing is written any more, and the new one is leaked.
  await header.setL1(home, entries);
  l1.replace(home, table);
  if (old.length > 0) frees.addDurable([{ ...old, discard: "other" }]);
}
