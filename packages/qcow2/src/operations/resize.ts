import type { TruncateOptions } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { alignUp, isAligned, MAX_LENGTH } from "@blocklayer/offsets";
import type { Writer } from "../data/writer.ts";
import type { Zeroer } from "../data/zeroer.ts";
import { readsAsZeroes } from "../image/mapping.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";
import { clearRange, dropTables } from "./clear-range.ts";
import { growL1 } from "./grow-l1.ts";
import { preallocate } from "./preallocate.ts";

/** Bytes that every size is a multiple of. */
const SECTOR = 512;

/** What resizing needs of the parts that read and write. */
export interface ResizeParts {
  readonly writer: Writer;
  readonly zeroer: Zeroer;
}

/**
 * Changes the size of the disk. The header's size is the switch: before it a larger disk gets ready, behind it a
 * smaller one gives up what it had.
 *
 * Nobody else uses the image meanwhile.
 *
 * @throws BlockError `EINVAL` no whole sectors, or preallocation of a smaller disk; `EFBIG` too large; `ENOTSUP`
 *   version 2 with snapshots
 * @see spec/qcow2.md section 10
 */
export async function resize(
  image: Qcow2Image,
  parts: ResizeParts,
  size: number,
  options: TruncateOptions,
): Promise<void> {
  const { header, host } = image;
  const context = { node: host.nodeName, operation: "truncate", size };
  if (!isAligned(size, SECTOR)) {
    throw new BlockError("EINVAL", `The new size must be a multiple of ${SECTOR}`, context);
  }
  if (size > MAX_LENGTH) throw new BlockError("EFBIG", "Image is too big", context);
  const { version, snapshotCount } = header.header;
  if (version === 2 && snapshotCount > 0) {
    const message = "Can't resize a version 2 image which has snapshots";
    throw new BlockError("ENOTSUP", message, context);
  }
  const preallocation = options.preallocation ?? "off";
  if (size < image.size) {
    if (preallocation !== "off") {
      const message = "Preallocation can't be used for shrinking an image";
      throw new BlockError("EINVAL", message, context);
    }
    await shrink(image, size);
  } else {
    await grow(image, parts, size, options);
  }
}

async function shrink(image: Qcow2Image, size: number): Promise<void> {
  const { geometry, header, file, host } = image;
  const oldSize = image.size;
  await image.writeback.flush();
  await header.setSize(size);
  const start = alignUp(size, geometry.clusterSize);
  await clearRange(image, start, alignUp(oldSize, geometry.clusterSize), "always");
  await image.writeback.flush();
  dropTables(image, geometry.l1EntriesFor(size));
  await image.writeback.finish();
  if (image.hasDataFile) {
    await image.data.truncate(size, { exact: false });
    return;
  }
  await image.allocator.exclusively(() => image.refcounts.dropEmptyBlocks());
  await image.writeback.finish();
  const end = await image.allocator.endOfUsed(file.size);
  if (end >= file.size) return;
  try {
    await file.child.truncate(end);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    host.warn(`Failed to truncate the tail of the image: ${error.message}`);
  }
}

async function grow(
  image: Qcow2Image,
  { writer, zeroer }: ResizeParts,
  size: number,
  options: TruncateOptions,
): Promise<void> {
  const { geometry, header } = image;
  const { clusterSize } = geometry;
  const oldSize = image.size;
  const preallocation = options.preallocation ?? "off";
  await growL1(image, geometry.l1EntriesFor(size));
  // What a shrinking that was cut short left behind.
  const start = alignUp(oldSize, clusterSize);
  await clearRange(image, start, alignUp(size, clusterSize), "always");
  await zeroTail(image, writer, oldSize, Math.min(start, size));
  if (preallocation !== "off" || (image.hasDataFile && image.isRawDataFile)) {
    const mode = preallocation === "off" ? "metadata" : preallocation;
    await preallocate(image, start, size, mode);
  } else {
    if (image.hasDataFile) await image.data.truncate(size, { exact: options.exact ?? true });
    if (options.zero === true && image.backing !== undefined && size > start) {
      await zeroer.zero(start, size - start, false);
    }
  }
  await image.writeback.flush();
  await header.setSize(size);
}

/** The part of the last cluster behind the old end: nobody cleared it when the disk became smaller. */
async function zeroTail(
  image: Qcow2Image,
  writer: Writer,
  start: number,
  end: number,
): Promise<void> {
  const { mapping } = image;
  while (start < end) {
    const run = mapping.find(start, end - start);
    if (run === undefined) {
      await mapping.load(start);
      continue;
    }
    if (!readsAsZeroes(run, start, image.backing?.size ?? 0)) {
      await writer.write(start, new Uint8Array(end - start));
      return;
    }
    start += run.length;
  }
}
