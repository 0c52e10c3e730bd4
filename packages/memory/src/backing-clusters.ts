import { type BlockChild, completed, type NodeHost } from "@blocklayer/driver";
import type { ClusterMap } from "./cluster-map.ts";

/**
 * What lies below: reads it, and brings clusters of it into the map for writes of a part.
 *
 * The child is looked up each time, since a graph may attach, exchange and detach it.
 */
export class BackingClusters {
  readonly #host: Pick<NodeHost, "children">;
  readonly #clusters: ClusterMap;
  readonly #fetches = new Map<number, Promise<void>>();
  /** Counts what drops clusters, so that a fetch that began before does not put one back. */
  #epoch: number = 0;

  constructor(host: Pick<NodeHost, "children">, clusters: ClusterMap) {
    this.#host = host;
    this.#clusters = clusters;
  }

  get child(): BlockChild | undefined {
    return this.#host.children.get("backing");
  }

  /** Whether there is something at `offset`, in bytes; beyond its end everything reads as zeroes. */
  reaches(offset: number): boolean {
    const { child } = this;
    return child !== undefined && offset < child.size;
  }

  /** Fills the buffer with what is below. */
  read(offset: number, buffer: Uint8Array): Promise<void> {
    const { child } = this;
    const inside = Math.max(0, Math.min(buffer.length, (child?.size ?? 0) - offset));
    buffer.fill(0, inside);
    if (child === undefined || inside === 0) return completed;
    return child.pread(offset, inside === buffer.length ? buffer : buffer.subarray(0, inside));
  }

  /**
   * Brings a cluster into the map; one fetch for all who need it.
   *
   * @param diskSize - bytes; nothing beyond is read
   */
  fetch(index: number, diskSize: number): Promise<void> {
    const running = this.#fetches.get(index);
    if (running !== undefined) return running;
    const work = this.#fetchNow(index, diskSize).finally(() => this.#fetches.delete(index));
    this.#fetches.set(index, work);
    return work;
  }

  /** Lets the fetches that are on their way come to nothing. */
  forgetFetches(): void {
    this.#epoch += 1;
  }

  async #fetchNow(index: number, diskSize: number): Promise<void> {
    const epoch = this.#epoch;
    const { clusterSize } = this.#clusters;
    const start = index * clusterSize;
    const cluster = this.#clusters.allocate();
    await this.read(start, cluster.subarray(0, Math.min(clusterSize, diskSize - start)));
    // Whoever came in between decided the content of the cluster: a write, a discard, a truncation.
    if (epoch === this.#epoch && !this.#clusters.has(index)) this.#clusters.setData(index, cluster);
  }
}
