import { BlockError } from "@blocklayer/errors";
import { writeU64 } from "@blocklayer/offsets";
import { REFCOUNT_TABLE_BYTES_MAX } from "../format/constants.ts";
import type { Geometry } from "../format/geometry.ts";
import { refcountAccess } from "../format/refcount-block.ts";
import type { HeaderStore } from "../image/header-store.ts";
import type { CheckFile } from "./check-file.ts";
import type { ClusterCounts } from "./cluster-counts.ts";

export interface RebuildOptions {
  readonly file: CheckFile;
  readonly geometry: Geometry;
  readonly header: HeaderStore;
  /** Number of the first cluster behind everything that is in use: the new counts go there. */
  readonly start: number;
  /** Numbers of clusters, in order. */
  readonly windows: Iterable<{ readonly from: number; readonly to: number }>;
  /** Counts the references in a window, without those of the old refcount table and blocks. */
  readonly count: (window: {
    readonly from: number;
    readonly to: number;
  }) => Promise<ClusterCounts>;
}

/**
 * Writes new counts behind everything that is in use, and then points the header to them; until then nothing of the
 * image is changed. Gaps are left alone: what a damaged table no longer refers to can still be rescued from them.
 *
 * What is behind `start` is the new blocks and the new table, each counted once:
 *
 * | clusters | who counts them |
 * | --- | --- |
 * | before the block that counts `start` | blocks written window by window |
 * | from there to the end | blocks written last, when it is known how many there are |
 *
 * @throws BlockError `EFBIG` the table would be too large; what writing reports
 * @see spec/qcow2.md section 12
 */
export async function rebuildCounts(options: RebuildOptions): Promise<void> {
  await new Rebuild(options).run();
}

class Rebuild {
  readonly #options: RebuildOptions;
  /** Number of the block by its index in the table: which cluster it is in. */
  readonly #homes = new Map<number, number>();
  #next: number;
  /** The counts of the window that holds the start. */
  #last: ClusterCounts | undefined;

  constructor(options: RebuildOptions) {
    this.#options = options;
    this.#next = options.start;
  }

  async run(): Promise<void> {
    const { file, geometry, header, start, windows, count } = this.#options;
    const { refcountsPerBlock, clusterSize } = geometry;
    const tail = Math.floor(start / refcountsPerBlock);
    for (const window of windows) {
      // Behind the start nothing is in use.
      if (window.from > start) break;
      const counts = await count(window);
      const end = Math.min(tail, Math.ceil(window.to / refcountsPerBlock));
      for (let index = window.from / refcountsPerBlock; index < end; index += 1) {
        const from = index * refcountsPerBlock;
        if (!counts.holds(from, from + refcountsPerBlock)) continue;
        await this.#writeBlock(index, this.#take(), counts, start);
      }
      this.#last = counts;
    }
    const layout = this.#layoutTail(tail);
    for (let index = tail; index <= layout.lastBlock; index += 1) {
      await this.#writeBlock(index, this.#take(), this.#last, layout.end);
    }
    const table = new Uint8Array(layout.tableClusters * clusterSize);
    for (const [index, home] of this.#homes) writeU64(table, index * 8, home * clusterSize);
    const offset = this.#next * clusterSize;
    await file.write(offset, table, "refcount-table");
    await file.flush();
    await header.setRefcountTable(offset, layout.tableClusters);
  }

  #take(): number {
    this.#next += 1;
    return this.#next - 1;
  }

  /** Finds how many blocks and how large a table it takes to count these as well. */
  #layoutTail(tail: number): { lastBlock: number; tableClusters: number; end: number } {
    const { refcountsPerBlock, clusterSize } = this.#options.geometry;
    for (let lastBlock = tail; ; ) {
      const tableClusters = Math.ceil(((lastBlock + 1) * 8) / clusterSize);
      const bytes = tableClusters * clusterSize;
      if (bytes > REFCOUNT_TABLE_BYTES_MAX) {
        const context = { bytes, limit: REFCOUNT_TABLE_BYTES_MAX };
        throw new BlockError("EFBIG", "the refcount table would be too large", context);
      }
      const end = this.#next + (lastBlock - tail + 1) + tableClusters;
      const needed = Math.floor((end - 1) / refcountsPerBlock);
      if (needed <= lastBlock) return { lastBlock, tableClusters, end };
      lastBlock = needed;
    }
  }

  /** @param end - clusters from the start to here are referenced once, by the new counts */
  async #writeBlock(
    index: number,
    home: number,
    counts: ClusterCounts | undefined,
    end: number,
  ): Promise<void> {
    const { file, geometry, start } = this.#options;
    const { refcountsPerBlock, clusterSize } = geometry;
    const access = refcountAccess(geometry.refcountBits);
    const block = new Uint8Array(clusterSize);
    const first = index * refcountsPerBlock;
    for (let at = 0; at < refcountsPerBlock; at += 1) {
      const cluster = first + at;
      if (cluster >= end) break;
      const isKnown = counts !== undefined && cluster >= counts.first && cluster < counts.end;
      const value = cluster >= start ? 1 : isKnown ? counts.get(cluster) : 0;
      if (value > 0) access.set(block, at, value);
    }
    await file.write(home * clusterSize, block, "refcount-block");
    this.#homes.set(index, home);
  }
}
