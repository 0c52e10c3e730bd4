import { readU32 } from "@blocklayer/offsets";
import type { CheckFile } from "./check-file.ts";
import type { Findings } from "./findings.ts";

/** A table of entries of 8 bytes, in bytes of the host file. */
export interface TableExtent {
  readonly offset: number;
  readonly length: number;
}

/** An entry, and how many tables it is in. */
export interface TableEntry {
  readonly high: number;
  readonly low: number;
  /** Number of the entry in the walked extent. */
  readonly index: number;
  readonly times: number;
}

/** Bytes that are read at a time. */
const CHUNK: number = 2 ** 20;

/**
 * Walks the entries that are not 0 of tables that may overlap, each place of the file once. What lies beyond the end of
 * the file is left out.
 */
export async function walkTables(
  file: CheckFile,
  findings: Findings,
  extents: readonly TableExtent[],
  visit: (entry: TableEntry) => Promise<void> | undefined,
): Promise<void> {
  for (const segment of segmentsOf(extents)) {
    const end = Math.min(segment.offset + segment.length, file.size - (file.size % 8));
    for (let at = segment.offset; at < end; at += CHUNK) {
      const bytes = new Uint8Array(Math.min(CHUNK, end - at));
      if (!(await tryRead(file, findings, at, bytes))) continue;
      await walkEntries(bytes, (at - segment.offset) / 8, segment.times, visit);
    }
  }
}

/** Reads, or tells that it can not be read. A check that is cancelled ends. */
export async function tryRead(
  file: CheckFile,
  findings: Findings,
  offset: number,
  bytes: Uint8Array,
): Promise<boolean> {
  try {
    await file.read(offset, bytes);
    return true;
  } catch (error) {
    if (file.isCancelled) throw error;
    findings.unreadable(`reading the metadata at 0x${offset.toString(16)}`, error);
    return false;
  }
}

async function walkEntries(
  bytes: Uint8Array,
  first: number,
  times: number,
  visit: (entry: TableEntry) => Promise<void> | undefined,
): Promise<void> {
  for (let at = 0; at + 8 <= bytes.length; at += 8) {
    const high = readU32(bytes, at);
    const low = readU32(bytes, at + 4);
    if (high === 0 && low === 0) continue;
    const work = visit({ high, low, index: first + at / 8, times });
    if (work !== undefined) await work;
  }
}

/** Cuts extents that overlap into pieces that do not, each with the number of extents that it is in. */
function segmentsOf(
  extents: readonly TableExtent[],
): readonly (TableExtent & { readonly times: number })[] {
  const changes = extents
    .filter(({ length }) => length > 0)
    .flatMap(({ offset, length }) => [
      { at: offset, by: 1 },
      { at: offset + length, by: -1 },
    ])
    .sort((one, two) => one.at - two.at);
  const segments: (TableExtent & { readonly times: number })[] = [];
  let times = 0;
  let start = 0;
  for (const { at, by } of changes) {
    if (times > 0 && at > start) segments.push({ offset: start, length: at - start, times });
    start = at;
    times += by;
  }
  return segments;
}
