import { BlockError } from "@blocklayer/errors";
import { isSafeSize } from "@blocklayer/offsets";
import {
  type BitmapEntry,
  decodeBitmapDirectory,
  markEntriesInUse,
} from "../format/bitmap-directory.ts";
import { Autoclear } from "../format/constants.ts";
import type { BitmapsExtension } from "../format/header-extensions.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";

/** The directory of bitmaps as the image has it. */
export interface StoredDirectory {
  readonly entries: readonly BitmapEntry[];
  readonly bytes: Uint8Array;
  /** Host bytes. */
  readonly offset: number;
}

const EMPTY: StoredDirectory = { entries: [], bytes: new Uint8Array(0), offset: 0 };

/** What the header says of bitmaps, if it is true. */
export function validExtension({ header }: Qcow2Image): BitmapsExtension | undefined {
  return header.header.autoclear.has(Autoclear.bitmaps) ? header.extensions.bitmaps : undefined;
}

/** @throws BlockError `EINVAL` it is damaged; whatever reading reports */
export async function readDirectory(image: Qcow2Image): Promise<StoredDirectory> {
  const extension = validExtension(image);
  if (extension === undefined) return EMPTY;
  const { file, geometry, host, size } = image;
  const { directoryOffset: offset, directorySize, count } = extension;
  if (!isSafeSize(offset) || offset + directorySize > file.size) {
    const message = "the directory of bitmaps ends beyond the image file";
    throw new BlockError("EINVAL", message, { node: host.nodeName, offset });
  }
  const bytes = new Uint8Array(directorySize);
  await file.read(offset, bytes);
  const entries = decodeBitmapDirectory(bytes, count, { geometry, diskSize: size });
  return { entries, bytes, offset };
}

/**
 * Marks bitmaps as in use where they are, durably, in one write: a crash leaves each as it was or marked, and until the
 * end of it nobody changes the disk.
 */
export async function markInPlace(
  image: Qcow2Image,
  { entries, bytes, offset }: StoredDirectory,
  isMeant: (entry: BitmapEntry) => boolean,
): Promise<void> {
  const changed = markEntriesInUse(bytes, (index) => {
    const entry = entries[index];
    return entry !== undefined && isMeant(entry);
  });
  if (changed === undefined) return;
  const { start, end } = changed;
  await image.file.write(offset + start, bytes.subarray(start, end), "bitmap-directory");
  await image.file.flush();
}
