import type { Geometry } from "../format/geometry.ts";
import {
  type ClusterKind,
  COMPRESSED_HIGH,
  type CompressedRange,
  clusterKind,
  decodeCompressed,
  entryOffset,
  isCopied,
  isValidHostOffset,
  subclusterKind,
} from "../format/l2-entry.ts";
import type { L2Tables } from "./l2-tables.ts";

/** A run of guest bytes of one kind. */
export interface Run {
  readonly kind: ClusterKind;
  /** Bytes, from the offset that was asked. */
  readonly length: number;
  /**
   * Where the run begins in the host file, or in the data file; meaningless where there is nothing. Of a compressed
   * cluster: 0.
   */
  readonly host: number;
  /** All of its host clusters are referenced by it alone. */
  readonly isOwn: boolean;
  readonly compressed?: CompressedRange;
}

/** The words of an L2 entry. */
export interface L2Words {
  readonly high: number;
  readonly low: number;
  /** Upper half of the second word of an extended entry, else 0. */
  readonly zeroes: number;
  /** Its lower half. */
  readonly allocated: number;
}

/** What a damaged entry is about. */
export interface DamagedEntry {
  readonly message: string;
  readonly offset: number;
}

const ABSENT: L2Words = { high: 0, low: 0, zeroes: 0, allocated: 0 };

/**
 * Finds out where guest bytes are.
 *
 * @see spec/qcow2.md section 3
 */
export class Mapping {
  readonly #tables: L2Tables;
  readonly #geometry: Geometry;
  readonly #hasDataFile: boolean;
  readonly #version: () => 2 | 3;
  #damage: DamagedEntry | undefined;

  constructor(
    tables: L2Tables,
    geometry: Geometry,
    options: { readonly hasDataFile: boolean; readonly version: () => 2 | 3 },
  ) {
    this.#tables = tables;
    this.#geometry = geometry;
    this.#hasDataFile = options.hasDataFile;
    this.#version = options.version;
  }

  /** What was wrong with the entry of a run whose kind is `invalid`. */
  get damage(): DamagedEntry | undefined {
    return this.#damage;
  }

  /**
   * Returns the run that begins at a guest offset, as far as one slice tells; `undefined` when the slice is not in
   * memory. Holds until the next `await`.
   *
   * @param length - bytes, 1 or more: the run is not longer
   */
  find(offset: number, length: number): Run | undefined {
    const slice = this.#tables.peek(offset);
    if (slice === undefined) return undefined;
    const most = Math.min(length, this.#tables.bytesLeftInSlice(offset));
    if (slice === null) return { kind: "unallocated", length: most, host: 0, isOwn: false };
    const { bytes } = slice;
    const index = this.#tables.indexInSlice(offset);
    return this.#geometry.extendedL2
      ? this.#findSubclusters(bytes, index, offset, most)
      : this.#findClusters(bytes, index, offset, most);
  }

  /** Brings what {@link find} needs into memory. */
  load(offset: number): Promise<void> {
    return this.#tables.load(offset);
  }

  /** The words of the entry for a guest offset, as {@link find}. */
  words(offset: number): L2Words | undefined {
    const slice = this.#tables.peek(offset);
    if (slice === undefined) return undefined;
    return slice === null ? ABSENT : this.#wordsAt(slice.bytes, this.#tables.indexInSlice(offset));
  }

  #findClusters(bytes: Uint8Array, index: number, offset: number, most: number): Run {
    const { clusterSize } = this.#geometry;
    const inCluster = offset % clusterSize;
    const high = word(bytes, index * 8);
    const low = word(bytes, index * 8 + 4);
    const kind = this.#kindOf(high, low, offset);
    if (kind === "compressed") return this.#compressed(high, low, inCluster, most);
    const host = entryOffset(high, low);
    const isOwn = isCopied(high);
    const hasHost = kind === "normal" || kind === "zero-alloc";
    let length = clusterSize - inCluster;
    for (let next = index + 1; length < most; next += 1, length += clusterSize) {
      const nextHigh = word(bytes, next * 8);
      const nextLow = word(bytes, next * 8 + 4);
      if (clusterKind(nextHigh, nextLow, this.#hasDataFile) !== kind) break;
      const isNext = entryOffset(nextHigh, nextLow) === host + inCluster + length;
      if (hasHost && !(isNext && isCopied(nextHigh) === isOwn)) break;
    }
    return { kind, length: Math.min(length, most), host: host + inCluster, isOwn };
  }

  #kindOf(high: number, low: number, offset: number): ClusterKind {
    const kind = clusterKind(high, low, this.#hasDataFile);
    const damage = this.#damageOf(kind, high, low, offset);
    if (damage === undefined) return kind;
    this.#damage = { message: damage, offset: entryOffset(high, low) };
    return "invalid";
  }

  #damageOf(kind: ClusterKind, high: number, low: number, offset: number): string | undefined {
    const start = this.#geometry.startOfCluster(offset);
    const where = `(guest offset: 0x${start.toString(16)})`;
    if (kind === "compressed") {
      return this.#hasDataFile
        ? "Compressed cluster encountered in an image with external data file"
        : undefined;
    }
    const isZero = kind === "zero-plain" || kind === "zero-alloc";
    if (isZero && this.#version() === 2) return `Zero cluster entry found in pre-v3 image ${where}`;
    if (kind !== "normal" && kind !== "zero-alloc" && kind !== "unallocated-alloc")
      return undefined;
    const host = entryOffset(high, low);
    if (!isValidHostOffset(host, this.#geometry)) {
      return `Cluster allocation offset 0x${host.toString(16)} unaligned ${where}`;
    }
    if (this.#hasDataFile && host !== start) {
      return `External data file host cluster offset 0x${host.toString(16)} does not match guest cluster offset: 0x${start.toString(16)}`;
    }
    return undefined;
  }

  #findSubclusters(bytes: Uint8Array, index: number, offset: number, most: number): Run {
    const { clusterSize, subclusterSize, subclusters } = this.#geometry;
    const inCluster = offset % clusterSize;
    const first = this.#wordsAt(bytes, index);
    const kind = this.#subKind(first, offset, this.#geometry.subclusterIndex(offset));
    if (kind === "compressed") {
      return this.#compressed(first.high, first.low, inCluster, most);
    }
    const host = entryOffset(first.high, first.low);
    const isOwn = isCopied(first.high);
    if (kind === "invalid") return { kind, length: most, host, isOwn };
    const hasHost = kind === "normal" || kind === "zero-alloc" || kind === "unallocated-alloc";
    let length = subclusterSize - (offset % subclusterSize);
    let words = first;
    while (length < most) {
      const at = inCluster + length;
      const number = (at / subclusterSize) % subclusters;
      if (number === 0) {
        words = this.#wordsAt(bytes, index + at / clusterSize);
        const isNext = entryOffset(words.high, words.low) === host + at;
        if (hasHost && !(isNext && isCopied(words.high) === isOwn)) break;
      }
      if (this.#rawSubKind(words, number) !== kind) break;
      length += subclusterSize;
    }
    return { kind, length: Math.min(length, most), host: host + inCluster, isOwn };
  }

  #subKind(words: L2Words, offset: number, index: number): ClusterKind {
    const kind = this.#rawSubKind(words, index);
    const start = this.#geometry.startOfCluster(offset);
    const damage =
      kind === "invalid"
        ? `Invalid cluster entry found  (guest offset: 0x${start.toString(16)})`
        : this.#damageOf(kind, words.high, words.low, offset);
    if (damage === undefined) return kind;
    this.#damage = { message: damage, offset: entryOffset(words.high, words.low) };
    return "invalid";
  }

  #rawSubKind({ high, low, zeroes, allocated }: L2Words, index: number): ClusterKind {
    return subclusterKind(high, low, zeroes, allocated, index, this.#hasDataFile);
  }

  /** Compressed clusters come one at a time. */
  #compressed(high: number, low: number, inCluster: number, most: number): Run {
    return {
      kind: "compressed",
      length: Math.min(most, this.#geometry.clusterSize - inCluster),
      host: 0,
      isOwn: false,
      compressed: decodeCompressed(high, low, this.#geometry),
    };
  }

  #wordsAt(bytes: Uint8Array, index: number): L2Words {
    const at = index * this.#geometry.entrySize;
    const isExtended = this.#geometry.extendedL2;
    return {
      high: word(bytes, at),
      low: word(bytes, at + 4),
      zeroes: isExtended ? word(bytes, at + 8) : 0,
      allocated: isExtended ? word(bytes, at + 12) : 0,
    };
  }
}

/** Whether a run reads as zeroes whatever is stored, given how long the backing file is. */
export function readsAsZeroes({ kind }: Run, offset: number, backingSize: number): boolean {
  if (kind === "zero-plain" || kind === "zero-alloc") return true;
  const isUnallocated = kind === "unallocated" || kind === "unallocated-alloc";
  return isUnallocated && offset >= backingSize;
}

/** Whether an entry of these words needs the host cluster of a compressed descriptor to be freed. */
export function isCompressed({ high }: Pick<L2Words, "high">): boolean {
  return (high & COMPRESSED_HIGH) !== 0;
}

/** A big-endian word; the index is inside. */
function word(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] as number) << 24) |
      ((bytes[at + 1] as number) << 16) |
      ((bytes[at + 2] as number) << 8) |
      (bytes[at + 3] as number)) >>>
    0
  );
}
