import type { Geometry } from "../format/geometry.ts";
import { ClusterCounts } from "./cluster-counts.ts";
import type { Findings } from "./findings.ts";

/**
 * Counts references to host clusters of one window.
 *
 * @see spec/qcow2.md section 12
 */
export class ReferenceCounter {
  readonly counts: ClusterCounts;
  readonly #geometry: Geometry;
  readonly #findings: Findings;
  readonly #fileSize: number;
  /** Number of the last cluster that is referenced, -1 for none. Of all windows. */
  highest = -1;

  /** @param fileSize - bytes; `from` and `to` are numbers of clusters */
  constructor(
    geometry: Geometry,
    findings: Findings,
    fileSize: number,
    window: { readonly from: number; readonly to: number },
  ) {
    this.#geometry = geometry;
    this.#findings = findings;
    this.#fileSize = fileSize;
    this.counts = new ClusterCounts(window.from, window.to);
  }

  /**
   * Counts a range of bytes: every cluster that it touches. What lies beyond the end of the file is not counted; a
   * cluster or more of it is a corruption.
   */
  add(offset: number, length: number, times = 1): void {
    const { clusterSize } = this.#geometry;
    if (length === clusterSize && offset % clusterSize === 0 && offset + length <= this.#fileSize) {
      this.#addOwn(offset / clusterSize, times);
      return;
    }
    if (length === 0) return;
    if (offset + length - this.#fileSize >= clusterSize) this.#tellBeyond(offset, length, times);
    const inside = Math.min(offset + length, Math.ceil(this.#fileSize / clusterSize) * clusterSize);
    const first = Math.floor(offset / clusterSize);
    const last = Math.ceil(inside / clusterSize) - 1;
    this.highest = Math.max(this.highest, last >= first ? last : -1);
    const { counts } = this;
    const end = Math.min(last, counts.end - 1);
    for (let cluster = Math.max(first, counts.first); cluster <= end; cluster += 1) {
      this.#addOne(cluster, times);
    }
  }

  /** One whole cluster inside the file: nearly all of what is counted. */
  #addOwn(cluster: number, times: number): void {
    if (cluster > this.highest) this.highest = cluster;
    const { first, end } = this.counts;
    if (cluster >= first && cluster < end) this.#addOne(cluster, times);
  }

  #addOne(cluster: number, times: number): void {
    const { refcountMax, clusterSize } = this.#geometry;
    const room = refcountMax - this.counts.get(cluster);
    if (times > room) {
      const offset = cluster * clusterSize;
      const text = (): string => `ERROR: overflow cluster offset=0x${offset.toString(16)}`;
      this.#findings.corruptionInWindow(text, times - room);
    }
    if (room > 0) this.counts.add(cluster, Math.min(times, room));
  }

  #tellBeyond(offset: number, length: number, times: number): void {
    const where = `offset 0x${offset.toString(16)} size 0x${length.toString(16)}`;
    const text = (): string =>
      `ERROR: counting reference for region exceeding the end of the file by one cluster or more: ${where}`;
    this.#findings.corruption(text, times);
  }
}
