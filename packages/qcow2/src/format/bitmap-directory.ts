import { BlockError } from "@blocklayer/errors";
import {
  alignUp,
  divideUp,
  isAligned,
  readU16,
  readU32,
  readU64,
  writeU16,
  writeU32,
  writeU64,
} from "@blocklayer/offsets";
import { BITMAP_DATA_BYTES_MAX, BITMAP_NAME_MAX, BITMAP_TABLE_ENTRIES_MAX } from "./constants.ts";
import type { Geometry } from "./geometry.ts";
import { concatenated, decodeText, encodeText } from "./header-extensions.ts";

/** An entry of the directory of persistent bitmaps. */
export interface BitmapEntry {
  readonly name: string;
  /** Bytes. */
  readonly tableOffset: number;
  /** Entries. */
  readonly tableSize: number;
  /** Bytes per bit are 2 to this power, 9 to 31. */
  readonly granularityBits: number;
  /** Was not stored since somebody began to change the disk. */
  readonly inUse: boolean;
  /** Records as soon as it is loaded. */
  readonly auto: boolean;
}

const ENTRY_BYTES = 24;
const ALIGNMENT = 8;
const TYPE_TRACKING = 1;
const IN_USE = 1;
const AUTO = 2;
const EXTRA_COMPATIBLE = 4;
export const GRANULARITY_BITS_MIN = 9;
export const GRANULARITY_BITS_MAX = 31;

/** What entries are checked against. */
export interface BitmapDirectoryContext {
  readonly geometry: Geometry;
  /** Bytes of the disk. */
  readonly diskSize: number;
}

/**
 * Decodes the directory.
 *
 * @param count - entries, as the header extension says
 * @throws BlockError `EINVAL` it has more or fewer entries, or one that cannot be
 * @see spec/qcow2.md section 16
 */
export function decodeBitmapDirectory(
  bytes: Uint8Array,
  count: number,
  context: BitmapDirectoryContext,
): BitmapEntry[] {
  const entries: BitmapEntry[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (entries.length === count)
      throw invalid("More bitmaps found than specified in header extension");
    if (at + ENTRY_BYTES > bytes.length) throw invalid("Broken bitmap directory");
    const nameLength = readU16(bytes, at + 18);
    const end = at + ENTRY_BYTES + readU32(bytes, at + 20) + nameLength;
    if (end > bytes.length) throw invalid("Broken bitmap directory");
    entries.push(decodeOne(bytes.subarray(at, end), context));
    at = alignUp(end, ALIGNMENT);
  }
  if (entries.length < count)
    throw invalid("Less bitmaps found than specified in header extension");
  return entries;
}

function decodeOne(entry: Uint8Array, context: BitmapDirectoryContext): BitmapEntry {
  const flags = readU32(entry, 12);
  const nameLength = readU16(entry, 18);
  const extraLength = readU32(entry, 20);
  const name = decodeText(entry.subarray(entry.length - nameLength));
  if (extraLength !== 0) {
    throw invalid(`bitmap extra data is not supported: bitmap '${name}'`, { bytes: extraLength });
  }
  if (nameLength === 0 || nameLength > BITMAP_NAME_MAX) {
    throw invalid("bitmap name has a wrong length", { length: nameLength, limit: BITMAP_NAME_MAX });
  }
  const bitmap: BitmapEntry = {
    name,
    tableOffset: readU64(entry, 0),
    tableSize: readU32(entry, 8),
    granularityBits: entry[17] ?? 0,
    inUse: (flags & IN_USE) !== 0,
    auto: (flags & AUTO) !== 0,
  };
  const hasUnknownFlags = (flags & ~(IN_USE | AUTO | EXTRA_COMPATIBLE)) !== 0;
  if (entry[16] !== TYPE_TRACKING || hasUnknownFlags) {
    throw invalid(`bitmap '${name}' has a type or flags that are not known`, { flags });
  }
  checkEntry(bitmap, context);
  return bitmap;
}

function checkEntry(bitmap: BitmapEntry, { geometry, diskSize }: BitmapDirectoryContext): void {
  const { name, tableOffset, tableSize, granularityBits, inUse } = bitmap;
  const isInRange =
    granularityBits >= GRANULARITY_BITS_MIN && granularityBits <= GRANULARITY_BITS_MAX;
  if (!isInRange) throw invalid(`bitmap '${name}' has a granularity of 2^${granularityBits} bytes`);
  if (tableOffset === 0 || !isAligned(tableOffset, geometry.clusterSize)) {
    throw invalid(`the table of bitmap '${name}' is not at a cluster`, { offset: tableOffset });
  }
  const dataBytes = tableSize * geometry.clusterSize;
  if (
    tableSize === 0 ||
    tableSize > BITMAP_TABLE_ENTRIES_MAX ||
    dataBytes > BITMAP_DATA_BYTES_MAX
  ) {
    throw invalid(`the table of bitmap '${name}' has ${tableSize} entries`, { tableSize });
  }
  // What was in use when the disk was resized may be too short: its content counts for nothing.
  if (!inUse && tableSize !== bitmapTableEntries(diskSize, granularityBits, geometry)) {
    throw invalid(`bitmap '${name}' does not cover the disk`, { tableSize, diskSize });
  }
}

/** Returns how many clusters of bits a disk needs. */
export function bitmapTableEntries(
  diskSize: number,
  granularityBits: number,
  { clusterSize }: Geometry,
): number {
  return divideUp(divideUp(diskSize, 2 ** granularityBits), clusterSize * 8);
}

/**
 * Sets the mark of entries in a directory that can be decoded. Nothing else changes: whichever sectors of it a crash
 * leaves behind, each entry is as it was or marked.
 *
 * @returns the bytes that changed, as a range of the directory; `undefined` when none did
 */
export function markEntriesInUse(
  bytes: Uint8Array,
  isMeant: (entry: number) => boolean,
): { readonly start: number; readonly end: number } | undefined {
  let start = -1;
  let end = -1;
  for (let at = 0, index = 0; at < bytes.length; index += 1) {
    const flags = readU32(bytes, at + 12);
    if (isMeant(index) && (flags & IN_USE) === 0) {
      writeU32(bytes, at + 12, flags | IN_USE);
      if (start < 0) start = at + 12;
      end = at + 16;
    }
    at = alignUp(at + ENTRY_BYTES + readU32(bytes, at + 20) + readU16(bytes, at + 18), ALIGNMENT);
  }
  return start < 0 ? undefined : { start, end };
}

/** Bytes that a bitmap of this name takes in the directory. */
export function bitmapEntryBytes(name: string): number {
  return alignUp(ENTRY_BYTES + encodeText(name).length, ALIGNMENT);
}

export function encodeBitmapDirectory(entries: readonly BitmapEntry[]): Uint8Array {
  return concatenated(entries.map(encodeEntry));
}

function encodeEntry(bitmap: BitmapEntry): Uint8Array {
  const bytes = new Uint8Array(bitmapEntryBytes(bitmap.name));
  const name = encodeText(bitmap.name);
  writeU64(bytes, 0, bitmap.tableOffset);
  writeU32(bytes, 8, bitmap.tableSize);
  writeU32(bytes, 12, (bitmap.inUse ? IN_USE : 0) | (bitmap.auto ? AUTO : 0));
  bytes[16] = TYPE_TRACKING;
  bytes[17] = bitmap.granularityBits;
  writeU16(bytes, 18, name.length);
  bytes.set(name, ENTRY_BYTES);
  return bytes;
}

function invalid(message: string, context: Readonly<Record<string, unknown>> = {}): BlockError {
  return new BlockError("EINVAL", message, context);
}
