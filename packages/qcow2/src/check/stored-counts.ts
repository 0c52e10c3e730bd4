import { readU32 } from "@blocklayer/offsets";
import type { Geometry } from "../format/geometry.ts";
import { type RefcountAccess, refcountAccess } from "../format/refcount-block.ts";
import { ClusterSet } from "../image/cluster-set.ts";
import type { CheckFile } from "./check-file.ts";
import type { ClusterCounts } from "./cluster-counts.ts";
import type { Findings } from "./findings.ts";
import { type TableExtent, tryRead } from "./l1-walk.ts";
import type { ReferenceCounter } from "./reference-counter.ts";

/** Bits of an entry of the refcount table below the offset. */
const RESERVED = 0x1ff;
const HIGH = 2 ** 32;

/** What comparing one window yields. */
export interface Comparison {
  /** Clusters of the window whose count in the file is 1 now. */
  readonly single: ClusterSet;
  /** Numbers of blocks that cannot be read: of what they count nothing is known. */
  readonly unknown: ReadonlySet<number>;
  readonly corruptions: number;
  readonly leaks: number;
  /** Number of the last cluster that is referenced or counted, -1 for none. */
  readonly highest: number;
}

type Draft = { -readonly [Member in keyof Comparison]: Comparison[Member] };

/** A cluster whose two counts differ. */
interface Difference {
  readonly cluster: number;
  readonly stored: number;
  readonly expected: number;
}

/**
 * The counts that an image holds: its refcount table, of 8 MiB at most, and one block at a time.
 *
 * @see spec/qcow2.md sections 4 and 12
 */
export class StoredCounts {
  readonly #file: CheckFile;
  readonly #geometry: Geometry;
  readonly #findings: Findings;
  readonly #access: RefcountAccess;
  readonly extent: TableExtent;
  readonly #table: Uint8Array;

  private constructor(
    file: CheckFile,
    geometry: Geometry,
    findings: Findings,
    extent: TableExtent,
    table: Uint8Array,
  ) {
    this.#file = file;
    this.#geometry = geometry;
    this.#findings = findings;
    this.#access = refcountAccess(geometry.refcountBits);
    this.extent = extent;
    this.#table = table;
  }

  static async read(
    file: CheckFile,
    geometry: Geometry,
    findings: Findings,
    extent: TableExtent,
  ): Promise<StoredCounts> {
    const inside = Math.max(0, Math.min(extent.length, file.size - extent.offset));
    const table = new Uint8Array(inside - (inside % 8));
    if (table.length > 0) await tryRead(file, findings, extent.offset, table);
    return new StoredCounts(file, geometry, findings, extent, table);
  }

  get #entries(): number {
    return this.#table.length / 8;
  }

  /** The clusters up to the last one that has a block. */
  get covered(): number {
    let index = this.#entries;
    while (index > 0 && this.#blockOffset(index - 1) === 0) index -= 1;
    return index * this.#geometry.refcountsPerBlock;
  }

  /** Counts the table and its blocks, and tells which of them cannot be. After everything else was counted. */
  count(counter: ReferenceCounter): void {
    counter.add(this.extent.offset, this.extent.length);
    for (let index = 0; index < this.#entries; index += 1) {
      const offset = this.#blockOffset(index);
      const isReserved = this.#reserved(index) !== 0;
      if (offset === 0 && !isReserved) continue;
      const problem = this.#problemOf(index, offset, isReserved);
      if (problem === undefined) this.#countBlock(index, offset, counter);
      else this.#findings.corruption(() => `ERROR ${problem}`);
    }
  }

  /** What is wrong with an entry, `undefined` for nothing. */
  #problemOf(index: number, offset: number, isReserved: boolean): string | undefined {
    const findings = this.#findings;
    if (isReserved) {
      findings.needsRebuild = true;
      return `refcount table entry ${index} has reserved bits set`;
    }
    if (offset % this.#geometry.clusterSize !== 0) {
      findings.needsRebuild = true;
      return `refcount block ${index} is not cluster aligned; refcount table entry corrupted`;
    }
    if (offset < this.#file.size) return undefined;
    // It counts nothing, so counts that are lower than they should be are found for themselves.
    if (findings.repair === "all") findings.needsRebuild = true;
    return `refcount block ${index} is outside image`;
  }

  #countBlock(index: number, offset: number, counter: ReferenceCounter): void {
    const { clusterSize } = this.#geometry;
    counter.add(offset, clusterSize);
    const cluster = offset / clusterSize;
    if (cluster < counter.counts.first || cluster >= counter.counts.end) return;
    const count = counter.counts.get(cluster);
    if (count === 1) return;
    this.#findings.corruptionInWindow(() => `ERROR refcount block ${index} refcount=${count}`);
    this.#findings.needsRebuild = true;
  }

  /**
   * Compares the counts of a window with those that were expected.
   *
   * @param fixes - writes what was expected where that is allowed, see `Findings.repair`
   * @param clusters - the clusters that the file has
   */
  async compare(counts: ClusterCounts, clusters: number, fixes: boolean): Promise<Comparison> {
    const { refcountsPerBlock } = this.#geometry;
    const end = Math.min(counts.end, clusters);
    const unknown = new Set<number>();
    const comparison = { single: new ClusterSet(), unknown, corruptions: 0, leaks: 0, highest: -1 };
    for (let from = counts.first; from < end; from += refcountsPerBlock) {
      const to = Math.min(from + refcountsPerBlock, end);
      const block = await this.#readBlock(from / refcountsPerBlock);
      if (block === "damaged") {
        unknown.add(from / refcountsPerBlock);
        continue;
      }
      if (block === undefined && !counts.mayHold(from, to)) continue;
      await this.#compareBlock(block, counts, { from, to }, fixes, comparison);
    }
    return comparison;
  }

  async #compareBlock(
    block: Uint8Array | undefined,
    counts: ClusterCounts,
    range: { readonly from: number; readonly to: number },
    fixes: boolean,
    into: Draft,
  ): Promise<void> {
    let isChanged = false;
    for (let cluster = range.from; cluster < range.to; cluster += 1) {
      const at = cluster - range.from;
      const expected = counts.get(cluster);
      let stored = block === undefined ? 0 : this.#access.get(block, at);
      if (stored !== expected) {
        const difference = { cluster, stored, expected };
        if (this.#settle(difference, block, at, fixes, into)) {
          stored = expected;
          isChanged = true;
        }
      }
      if (stored === 1) into.single.add(cluster);
      if (stored > 0 || expected > 0) into.highest = cluster;
    }
    if (!isChanged || block === undefined) return;
    const offset = this.#blockOffset(range.from / this.#geometry.refcountsPerBlock);
    await this.#file.write(offset, block, "refcount-block");
  }

  /** Sets a count to what was expected, or tells that it differs. Returns whether it was set. */
  #settle(
    difference: Difference,
    block: Uint8Array | undefined,
    at: number,
    fixes: boolean,
    into: Draft,
  ): boolean {
    const { stored, expected } = difference;
    if (stored > expected) into.leaks += 1;
    else into.corruptions += 1;
    if (!fixes || block === undefined || !this.#mayFix(difference)) {
      this.#tellDifference(difference);
      return false;
    }
    this.#access.set(block, at, expected);
    return true;
  }

  /** Whether a count may be set to what was expected: a leak in every repair, too low a count in one of everything. */
  #mayFix({ stored, expected }: Difference): boolean {
    return stored > expected || this.#findings.repair === "all";
  }

  #tellDifference({ cluster, stored, expected }: Difference): void {
    const numbers = `cluster ${cluster} refcount=${stored} reference=${expected}`;
    if (stored > expected) {
      this.#findings.leak(() => `Leaked ${numbers}`);
      return;
    }
    this.#findings.corruption(() => `ERROR ${numbers}`);
    if (stored === 0) this.#findings.needsRebuild = true;
  }

  /** `undefined` where there is none; `"damaged"` where it cannot be read. */
  async #readBlock(index: number): Promise<Uint8Array | undefined | "damaged"> {
    if (index >= this.#entries) return undefined;
    const offset = this.#blockOffset(index);
    if (offset === 0 || offset >= this.#file.size) return undefined;
    if (offset % this.#geometry.clusterSize !== 0) return "damaged";
    const block = new Uint8Array(this.#geometry.clusterSize);
    return (await tryRead(this.#file, this.#findings, offset, block)) ? block : "damaged";
  }

  #blockOffset(index: number): number {
    const low = readU32(this.#table, index * 8 + 4);
    return readU32(this.#table, index * 8) * HIGH + low - (low % (RESERVED + 1));
  }

  #reserved(index: number): number {
    return readU32(this.#table, index * 8 + 4) & RESERVED;
  }
}
