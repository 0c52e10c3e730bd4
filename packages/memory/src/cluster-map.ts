import { assert, BlockError } from "@blocklayer/errors";

/*
 * A cluster is in one of three states:
 *
 * | state       | in the map   | reads             | partial write                | write-zeroes          | discard               |
 * | ----------- | ------------ | ----------------- | ---------------------------- | --------------------- | --------------------- |
 * | unallocated | nothing      | backing, or zeroes| fetched from backing, then data | zero *               | zero, without backing as it is |
 * | zero        | `ZERO`       | zeroes            | data                         | zero                  | zero; unallocated without backing |
 * | data        | its bytes    | its bytes         | data                         | zero *                | zero; unallocated without backing |
 *
 * (*) unallocated with may-unmap and without backing.
 *
 * A discarded cluster becomes zero where there is a backing child: what the overlay replaced long ago never
 * comes back. Write-zeroes and discards of a part of a cluster: write-zeroes clears the bytes, a discard is
 * ignored.
 *
 * Everything happens within the call, but for reading the backing child. A cluster that a partial write needs
 * is fetched once, whoever needs it meanwhile waits for that one fetch, and each then looks at the cluster
 * anew: whatever a full write, write-zeroes or discard put there in between wins over what was fetched.
 */

/** Content of a cluster that reads as zeroes and takes no memory. */
export const ZERO: unique symbol = Symbol("zero");

export type Cluster = Uint8Array | typeof ZERO;

export interface ClusterMapOptions {
  /** Bytes. */
  readonly clusterSize: number;
  /** Where memory comes from; a `RangeError` means there is none. */
  readonly allocate: (length: number) => Uint8Array;
  /** Named in errors. */
  readonly node: string;
}

/** The clusters that a layer decides, by index; those of data hold memory. */
export class ClusterMap {
  readonly clusterSize: number;
  readonly #allocate: (length: number) => Uint8Array;
  readonly #node: string;
  readonly #clusters = new Map<number, Cluster>();
  #dataCount: number = 0;

  constructor({ clusterSize, allocate, node }: ClusterMapOptions) {
    this.clusterSize = clusterSize;
    this.#allocate = allocate;
    this.#node = node;
  }

  /** Bytes of memory that clusters of data take. */
  get dataSize(): number {
    return this.#dataCount * this.clusterSize;
  }

  /** Number of clusters that are allocated: data or zero. */
  get count(): number {
    return this.#clusters.size;
  }

  /** The cluster's content, `undefined` when it is unallocated. */
  get(index: number): Cluster | undefined {
    return this.#clusters.get(index);
  }

  has(index: number): boolean {
    return this.#clusters.has(index);
  }

  /**
   * Returns memory for a cluster, zeroed and not yet in the map.
   *
   * @throws BlockError `ENOMEM`
   */
  allocate(): Uint8Array {
    try {
      return this.#allocate(this.clusterSize);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new BlockError(
        "ENOMEM",
        `no memory for another ${this.clusterSize} bytes beside ${this.dataSize}`,
        { node: this.#node, length: this.clusterSize },
        { cause: error },
      );
    }
  }

  /** Makes a cluster that holds no data one of data. */
  setData(index: number, cluster: Uint8Array): Uint8Array {
    assert(cluster.length === this.clusterSize, "a cluster has the size of a cluster");
    assert(!(this.#clusters.get(index) instanceof Uint8Array), "data is not replaced but written");
    this.#clusters.set(index, cluster);
    this.#dataCount += 1;
    return cluster;
  }

  /** Makes a cluster zero or unallocated, giving its memory back. */
  clear(index: number, isUnallocated: boolean): void {
    if (this.#clusters.get(index) instanceof Uint8Array) this.#dataCount -= 1;
    if (isUnallocated) this.#clusters.delete(index);
    else this.#clusters.set(index, ZERO);
  }

  /** Makes all clusters from `first` on unallocated. */
  dropFrom(first: number): void {
    for (const index of [...this.#clusters.keys()]) if (index >= first) this.clear(index, true);
  }

  /** The index of the next allocated cluster from `first` on, else `end`. Costs a walk over all of them. */
  nextAllocated(first: number, end: number): number {
    let next = end;
    for (const index of this.#clusters.keys()) if (index >= first && index < next) next = index;
    return next;
  }

  /** Makes everything unallocated. */
  empty(): void {
    this.#clusters.clear();
    this.#dataCount = 0;
  }
}
