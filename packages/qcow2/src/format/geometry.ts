import { alignDown, divideDown, divideUp, remainder } from "@blocklayer/offsets";
import { SUBCLUSTERS } from "./constants.ts";

export interface GeometryOptions {
  /** 9 to 21. */
  readonly clusterBits: number;
  readonly extendedL2: boolean;
  /** 0 to 6: a count has 2 to this power bits. */
  readonly refcountOrder: number;
}

/**
 * The sizes that follow from the header, and where a guest offset is looked up.
 *
 * @see spec/qcow2.md sections 3 and 4
 */
export class Geometry {
  readonly clusterBits: number;
  /** Bytes. */
  readonly clusterSize: number;
  readonly extendedL2: boolean;
  /** Parts of a cluster that can be allocated alone: 32 or 1. */
  readonly subclusters: number;
  /** Bytes. */
  readonly subclusterSize: number;
  /** Bytes of an L2 entry: 16 or 8. */
  readonly entrySize: number;
  /** Entries of an L2 table. */
  readonly l2Entries: number;
  /** Bytes of the disk that one L1 entry covers. */
  readonly l1Span: number;
  #refcountOrder: number = 0;
  #refcountsPerBlock: number = 0;
  #refcountMax: number = 0;
  /** Bits of a compressed descriptor that hold the host offset. */
  readonly compressedOffsetBits: number;

  constructor({ clusterBits, extendedL2, refcountOrder }: GeometryOptions) {
    this.clusterBits = clusterBits;
    this.clusterSize = 2 ** clusterBits;
    this.extendedL2 = extendedL2;
    this.subclusters = extendedL2 ? SUBCLUSTERS : 1;
    this.subclusterSize = this.clusterSize / this.subclusters;
    this.entrySize = extendedL2 ? 16 : 8;
    this.l2Entries = this.clusterSize / this.entrySize;
    this.l1Span = this.clusterSize * this.l2Entries;
    this.adoptRefcountOrder(refcountOrder);
    this.compressedOffsetBits = 62 - (clusterBits - 8);
  }

  get refcountOrder(): number {
    return this.#refcountOrder;
  }

  get refcountBits(): number {
    return 2 ** this.#refcountOrder;
  }

  /** Counts in a refcount block. */
  get refcountsPerBlock(): number {
    return this.#refcountsPerBlock;
  }

  /** The largest count; of 64-bit counts the largest that is exact here. */
  get refcountMax(): number {
    return this.#refcountMax;
  }

  /** Takes another width of counts: the only size that can change while an image is open. */
  adoptRefcountOrder(order: number): void {
    this.#refcountOrder = order;
    this.#refcountsPerBlock = (this.clusterSize * 8) / this.refcountBits;
    this.#refcountMax = Math.min(2 ** this.refcountBits - 1, Number.MAX_SAFE_INTEGER);
  }

  /** Index into the L1 table. */
  l1Index(offset: number): number {
    return divideDown(offset, this.l1Span);
  }

  /** Index into the L2 table. */
  l2Index(offset: number): number {
    return divideDown(remainder(offset, this.l1Span), this.clusterSize);
  }

  /** Bytes from the start of the cluster. */
  offsetIntoCluster(offset: number): number {
    return remainder(offset, this.clusterSize);
  }

  /** Start of the cluster that holds `offset`. */
  startOfCluster(offset: number): number {
    return alignDown(offset, this.clusterSize);
  }

  /** Index of the subcluster within its cluster. */
  subclusterIndex(offset: number): number {
    return divideDown(this.offsetIntoCluster(offset), this.subclusterSize);
  }

  /** Clusters that so many bytes need. */
  clustersOf(length: number): number {
    return divideUp(length, this.clusterSize);
  }

  /** L1 entries that a disk of `size` bytes needs. */
  l1EntriesFor(size: number): number {
    return divideUp(size, this.l1Span);
  }
}
