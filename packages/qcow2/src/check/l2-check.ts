import { writeU32 } from "@blocklayer/offsets";
import type { Geometry } from "../format/geometry.ts";
import {
  COMPRESSED_HIGH,
  clusterKind,
  decodeCompressed,
  entryOffset,
  isCopied,
} from "../format/l2-entry.ts";
import type { CheckFile } from "./check-file.ts";
import type { Findings } from "./findings.ts";
import { tryRead } from "./l1-walk.ts";
import type { L2Visit } from "./l2-batch.ts";
import type { ReferenceCounter } from "./reference-counter.ts";

/** Bits 56 to 61 of an entry, in its upper half. */
const RESERVED_HIGH = 0x3f000000;
/** Bits 1 to 8, in the lower half. Bit 0 says that a cluster is all zeroes. */
const RESERVED_LOW = 0x1fe;
const OFFSET_LOW = 0xfffffe00;

/** The words of an entry, where it is, and how often it is met. */
interface Entry {
  readonly high: number;
  readonly low: number;
  /** Upper half of the second word of an extended entry: subclusters that are zeroes. */
  readonly zeroes: number;
  /** Its lower half: subclusters that are allocated. */
  readonly allocated: number;
  /** Bytes from the start of the table. */
  readonly at: number;
  readonly times: number;
  readonly isActive: boolean;
}

interface Statistics {
  allocated: number;
  fragmented: number;
  compressed: number;
  /** Where the next cluster would be if nothing were fragmented; 0 for anywhere. Bytes. */
  next: number;
}

/**
 * Checks the entries of L2 tables, counts what they refer to, and frees entries from host clusters that cannot be.
 *
 * @see spec/qcow2.md section 12
 */
export class L2Check {
  readonly #file: CheckFile;
  readonly #geometry: Geometry;
  readonly #findings: Findings;
  readonly #hasDataFile: boolean;
  readonly #counter: ReferenceCounter;
  /** The table that is looked at; tables come one after the other. */
  readonly #bytes: Uint8Array;

  constructor(options: {
    readonly file: CheckFile;
    readonly geometry: Geometry;
    readonly findings: Findings;
    readonly hasDataFile: boolean;
    readonly counter: ReferenceCounter;
  }) {
    this.#file = options.file;
    this.#geometry = options.geometry;
    this.#findings = options.findings;
    this.#hasDataFile = options.hasDataFile;
    this.#counter = options.counter;
    this.#bytes = new Uint8Array(options.geometry.clusterSize);
  }

  /** Checks one table. Entries that were mended are in the file when it resolves. */
  async check({ offset, active, inactive }: L2Visit): Promise<void> {
    const { clusterSize, entrySize, extendedL2 } = this.#geometry;
    const bytes = this.#bytes;
    const view = new DataView(bytes.buffer);
    if (!(await tryRead(this.#file, this.#findings, offset, bytes))) return;
    const times = active + inactive;
    const statistics: Statistics = { allocated: 0, fragmented: 0, compressed: 0, next: 0 };
    for (let at = 0; at < clusterSize; at += entrySize) {
      const high = view.getUint32(at);
      const low = view.getUint32(at + 4);
      const zeroes = extendedL2 ? view.getUint32(at + 8) : 0;
      const allocated = extendedL2 ? view.getUint32(at + 12) : 0;
      if (high === 0 && low === 0 && allocated === 0) continue;
      if (this.#isPlain(high, low) && (zeroes & allocated) === 0) {
        this.#countPlain(entryOffset(high, low), times, statistics);
        continue;
      }
      const entry = { high, low, zeroes, allocated, at, times, isActive: active > 0 };
      if (this.#checkEntry(entry, statistics)) await this.#unlink(offset, entry, bytes);
    }
    if (active === 0) return;
    const { allocated, fragmented, compressed } = statistics;
    this.#findings.allocated(allocated * active, fragmented * active, compressed * active);
  }

  /** Whether an entry is what nearly all of them are: data at a cluster of the image file, and nothing else. */
  #isPlain(high: number, low: number): boolean {
    const { clusterSize } = this.#geometry;
    const isOther = (high & (RESERVED_HIGH | COMPRESSED_HIGH)) !== 0 || low % clusterSize !== 0;
    return !isOther && !this.#hasDataFile && (low !== 0 || entryOffset(high, 0) !== 0);
  }

  #countPlain(offset: number, times: number, statistics: Statistics): void {
    const { clusterSize } = this.#geometry;
    countCluster(offset, clusterSize, statistics);
    this.#counter.add(offset, clusterSize, times);
  }

  /** Returns whether the entry has to be freed from its host cluster. */
  #checkEntry(entry: Entry, statistics: Statistics): boolean {
    const { high, low } = entry;
    const kind = clusterKind(
      high,
      this.#geometry.extendedL2 ? low & OFFSET_LOW : low,
      this.#hasDataFile,
    );
    if (kind === "compressed") {
      this.#checkCompressed(entry, statistics);
      return false;
    }
    this.#checkReserved(entry);
    if (kind === "unallocated" || kind === "zero-plain") {
      this.#checkAbsent(entry);
      return false;
    }
    return this.#checkPresent(entry, kind === "zero-alloc", statistics);
  }

  #checkCompressed(entry: Entry, statistics: Statistics): void {
    const { high, low, zeroes, allocated, times } = entry;
    const range = decodeCompressed(high, low, this.#geometry);
    const where = (): string => `coffset=0x${range.offset.toString(16)}`;
    if (this.#hasDataFile) {
      const text = (): string =>
        `ERROR compressed cluster ${entry.at / this.#geometry.entrySize} with data file, entry=0x${hex(entry)}`;
      this.#findings.corruption(text, times);
      return;
    }
    if (isCopied(high)) {
      const text = (): string =>
        `ERROR: ${where()}: copied flag must never be set for compressed clusters`;
      this.#findings.corruption(text, times);
    }
    if (zeroes !== 0 || allocated !== 0) {
      const text = (): string =>
        `ERROR compressed cluster with non-zero subcluster allocation bitmap, ${where()}`;
      this.#findings.corruption(text, times);
    }
    this.#counter.add(range.offset, range.length, times);
    statistics.allocated += 1;
    statistics.compressed += 1;
    // Compressed clusters are fragmented by their nature.
    statistics.fragmented += 1;
  }

  #checkReserved(entry: Entry): void {
    const isReserved = (entry.high & RESERVED_HIGH) !== 0 || (entry.low & RESERVED_LOW) !== 0;
    if (!isReserved) return;
    const text = (): string => `ERROR found l2 entry with reserved bits set: ${hex(entry)}`;
    this.#findings.corruption(text, entry.times);
  }

  #checkAbsent({ allocated, times }: Entry): void {
    if (allocated === 0) return;
    const text = (): string => "ERROR: Unallocated cluster has non-zero subcluster allocation map";
    this.#findings.corruption(text, times);
  }

  #checkPresent(entry: Entry, isZero: boolean, statistics: Statistics): boolean {
    const { high, low, zeroes, allocated, times } = entry;
    const { clusterSize, extendedL2 } = this.#geometry;
    const offset = entryOffset(high, low);
    if ((zeroes & allocated) !== 0) {
      const text = (): string =>
        `ERROR offset=${offset.toString(16)}: Allocated cluster has corrupted subcluster allocation bitmap`;
      this.#findings.corruption(text, times);
    }
    if (offset % clusterSize !== 0) {
      const hasData = extendedL2 ? allocated !== 0 : !isZero;
      if (this.#tellUnaligned(offset, hasData, times)) return true;
    }
    if (this.#hasDataFile) countCluster(offset, clusterSize, statistics);
    else this.#countPlain(offset, times, statistics);
    return false;
  }

  /** Returns whether it is to be mended: without data in it nothing is lost. */
  #tellUnaligned(offset: number, hasData: boolean, times: number): boolean {
    const canFix = !hasData && this.#findings.repair === "all";
    const what = hasData ? "Data" : "Preallocated";
    const text = (): string =>
      `${canFix ? "Repairing" : "ERROR"} offset=${offset.toString(16)}: ${what} cluster is not properly aligned; L2 entry corrupted.`;
    if (!canFix) this.#findings.corruption(text, times);
    return canFix;
  }

  /** Makes the entry one of zeroes without a host cluster. */
  async #unlink(table: number, entry: Entry, bytes: Uint8Array): Promise<void> {
    const { extendedL2, entrySize } = this.#geometry;
    const { at, zeroes, times } = entry;
    const changed = new Uint8Array(entrySize);
    writeU32(changed, 4, extendedL2 ? 0 : 1);
    if (extendedL2) writeU32(changed, 8, zeroes);
    const what = `offset=${entryOffset(entry.high, entry.low).toString(16)}: Preallocated cluster is not properly aligned; L2 entry corrupted.`;
    try {
      const section = entry.isActive ? "active-l2" : "inactive-l2";
      await this.#file.write(table + at, changed, section);
    } catch (error) {
      this.#findings.corruption(() => `ERROR ${what}`, times);
      this.#findings.failed(`writing the L2 entry at 0x${(table + at).toString(16)}`, error);
      return;
    }
    bytes.set(changed, at);
    this.#findings.corruptionFixed(() => `Repairing ${what}`);
  }
}

function countCluster(offset: number, clusterSize: number, statistics: Statistics): void {
  statistics.allocated += 1;
  if (statistics.next !== 0 && offset !== statistics.next) statistics.fragmented += 1;
  statistics.next = offset + clusterSize;
}

function hex({ high, low }: Pick<Entry, "high" | "low">): string {
  return (BigInt(high) * 2n ** 32n + BigInt(low)).toString(16);
}
