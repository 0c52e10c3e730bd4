import { BlockError } from "@blocklayer/errors";
import {
  bitmapEntryBytes,
  bitmapTableEntries,
  GRANULARITY_BITS_MAX,
  GRANULARITY_BITS_MIN,
} from "../format/bitmap-directory.ts";
import {
  BITMAP_DATA_BYTES_MAX,
  BITMAP_DIRECTORY_BYTES_MAX,
  BITMAP_NAME_MAX,
  BITMAP_TABLE_ENTRIES_MAX,
  BITMAPS_MAX,
} from "../format/constants.ts";
import { encodeText } from "../format/header-extensions.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";

/** What decides whether a bitmap can be stored. Sizes in bytes. */
export interface BitmapShape {
  readonly name: string;
  readonly granularity: number;
  readonly size: number;
}

/** @throws BlockError `ENOTSUP` images of version 2 hold no bitmaps */
export function checkVersion(image: Qcow2Image): void {
  if (image.header.header.version >= 3) return;
  const message = "Cannot store dirty bitmaps in qcow2 v2 files";
  throw new BlockError("ENOTSUP", message, { node: image.host.nodeName });
}

/**
 * Checks what the format asks of one bitmap.
 *
 * @returns the granularity as a power of two
 * @throws BlockError `EINVAL`, `EFBIG`
 * @see spec/dirty-bitmap.md section 8.1
 */
export function checkShape(image: Qcow2Image, { name, granularity, size }: BitmapShape): number {
  const context = { node: image.host.nodeName, bitmap: name };
  const fail = (code: string, message: string, limit: number): never => {
    throw new BlockError(code, message, { ...context, limit });
  };
  const nameLength = encodeText(name).length;
  if (nameLength === 0) fail("EINVAL", "Bitmap name cannot be empty", BITMAP_NAME_MAX);
  if (nameLength > BITMAP_NAME_MAX) {
    const message = `Name length exceeds maximum (${BITMAP_NAME_MAX} characters)`;
    fail("EINVAL", message, BITMAP_NAME_MAX);
  }
  const bits = Math.log2(granularity);
  const isPossible =
    Number.isInteger(bits) && bits >= GRANULARITY_BITS_MIN && bits <= GRANULARITY_BITS_MAX;
  if (!isPossible) {
    const message = `Granularity must be power of 2 from ${2 ** GRANULARITY_BITS_MIN} to ${2 ** GRANULARITY_BITS_MAX}`;
    fail("EINVAL", message, 2 ** GRANULARITY_BITS_MAX);
  }
  if (size !== image.size) {
    fail("EINVAL", `Bitmap '${name}' does not cover the disk`, image.size);
  }
  const { geometry } = image;
  const entries = bitmapTableEntries(size, bits, geometry);
  // An empty disk has no bits, and the format has no empty table.
  if (entries === 0) fail("EINVAL", "An empty disk holds no bitmaps", 0);
  const dataBytes = entries * geometry.clusterSize;
  if (entries > BITMAP_TABLE_ENTRIES_MAX || dataBytes > BITMAP_DATA_BYTES_MAX) {
    const message = "Too much space will be occupied by the bitmap. Use larger granularity";
    fail("EFBIG", message, BITMAP_DATA_BYTES_MAX);
  }
  return bits;
}

/**
 * Checks what the format asks of all bitmaps together.
 *
 * @throws BlockError `EFBIG` too many; `EEXIST` two of one name
 */
export function checkSet(image: Qcow2Image, names: readonly string[]): void {
  const { nodeName } = image.host;
  const seen = new Set<string>();
  for (const name of names) {
    if (seen.has(name)) {
      const message = `Bitmap already exists: ${name}`;
      throw new BlockError("EEXIST", message, { node: nodeName, bitmap: name });
    }
    seen.add(name);
  }
  const bytes = names.reduce((sum, name) => sum + bitmapEntryBytes(name), 0);
  if (names.length > BITMAPS_MAX) {
    const message = `the image has ${BITMAPS_MAX} bitmaps and no room for more`;
    throw new BlockError("EFBIG", message, { node: nodeName, limit: BITMAPS_MAX });
  }
  if (bytes > BITMAP_DIRECTORY_BYTES_MAX) {
    const message = "the directory of bitmaps would be too large";
    throw new BlockError("EFBIG", message, { node: nodeName, limit: BITMAP_DIRECTORY_BYTES_MAX });
  }
}
