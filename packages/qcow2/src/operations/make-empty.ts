import type { Qcow2Image } from "../image/qcow2-image.ts";
import { clearRange, dropTables } from "./clear-range.ts";

/**
 * Drops all data, so that the backing file shows everywhere. Nobody else uses the image meanwhile.
 *
 * @see spec/qcow2.md section 14
 */
export async function makeEmpty(image: Qcow2Image): Promise<void> {
  const { geometry, allocator, file, l2 } = image;
  await clearRange(image, 0, l2.l1.entries * geometry.l1Span, "snapshot");
  dropTables(image, 0);
  await image.writeback.finish();
  const end = await allocator.endOfUsed(file.size);
  if (end < file.size) await file.child.truncate(end);
}
