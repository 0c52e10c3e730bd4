import { type BitmapEntry, decodeBitmapDirectory } from "../format/bitmap-directory.ts";
import { BITMAP_DIRECTORY_BYTES_MAX } from "../format/constants.ts";
import type { Geometry } from "../format/geometry.ts";
import type { BitmapsExtension } from "../format/header-extensions.ts";
import { entryOffset } from "../format/l2-entry.ts";
import type { CheckFile } from "./check-file.ts";
import type { Findings } from "./findings.ts";
import { type TableEntry, tryRead, walkTables } from "./l1-walk.ts";
import type { ReferenceCounter } from "./reference-counter.ts";

/** Bits 56 to 63 of an entry, in its upper half. */
const RESERVED_HIGH = 0xff000000;
/** Bits 1 to 8, in the lower half. Bit 0 says that bits without a cluster are all set. */
const RESERVED_LOW = 0x1fe;

/**
 * Counts the clusters of persistent bitmaps: directory, tables, data.
 *
 * A directory that cannot be is a corruption, and keeps anything from being given back: what seems to be unused
 * may be a bitmap.
 *
 * @see spec/qcow2.md section 16
 */
export async function countBitmaps(
  extension: BitmapsExtension,
  diskSize: number,
  options: {
    readonly file: CheckFile;
    readonly geometry: Geometry;
    readonly findings: Findings;
    readonly counter: ReferenceCounter;
  },
): Promise<void> {
  const { file, geometry, findings, counter } = options;
  const { directoryOffset, directorySize, count } = extension;
  counter.add(directoryOffset, directorySize);
  if (directoryOffset >= file.size) return;
  const length = Math.min(directorySize, BITMAP_DIRECTORY_BYTES_MAX, file.size - directoryOffset);
  const directory = new Uint8Array(length);
  if (!(await tryRead(file, findings, directoryOffset, directory))) return;
  let bitmaps: readonly BitmapEntry[];
  try {
    bitmaps = decodeBitmapDirectory(directory, count, { geometry, diskSize });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    findings.corruption(() => `ERROR bitmap directory: ${reason}`);
    findings.isIncomplete = true;
    return;
  }
  const visit = (entry: TableEntry): undefined => countData(entry, geometry, findings, counter);
  const tables = bitmaps.map(({ tableOffset, tableSize }) => ({
    offset: tableOffset,
    length: tableSize * 8,
  }));
  for (const { offset, length: bytes } of tables) counter.add(offset, bytes);
  await walkTables(file, findings, tables, visit);
}

function countData(
  { high, low, times }: TableEntry,
  geometry: Geometry,
  findings: Findings,
  counter: ReferenceCounter,
): undefined {
  const offset = entryOffset(high, low);
  const isOnesWithData = offset !== 0 && (low & 1) === 1;
  const isWrong =
    (high & RESERVED_HIGH) !== 0 ||
    (low & RESERVED_LOW) !== 0 ||
    isOnesWithData ||
    offset % geometry.clusterSize !== 0;
  if (isWrong) {
    const word = (BigInt(high) * 2n ** 32n + BigInt(low)).toString(16);
    findings.corruption(
      () => `ERROR found bitmap table entry with reserved bits set: ${word}`,
      times,
    );
  }
  if (offset !== 0) counter.add(offset, geometry.clusterSize, times);
}
