import { COMPRESSED_SECTOR, HOST_OFFSET_MAX } from "./constants.ts";
import type { Geometry } from "./geometry.ts";

/*
 * Entries of L1 and L2 tables are 64-bit words, handled as two halves: host offsets need more bits than shifts have.
 */

/** Bit 63 of an entry: what it refers to is referenced by it alone. Bit 31 of the upper half. */
export const COPIED_HIGH = 0x80000000;
/** Bit 62: compressed. Bit 30 of the upper half. */
export const COMPRESSED_HIGH = 0x40000000;
/** Bits 32 to 55, in the upper half. */
const OFFSET_HIGH_MASK = 0x00ffffff;
/** Bits 9 to 31, in the lower half. */
const OFFSET_LOW_MASK = 0xfffffe00;
/** Bit 0: all zeroes. */
export const ZERO_LOW = 0x1;
const HIGH = 2 ** 32;

/** What a cluster, or a subcluster, is. */
export type ClusterKind =
  /** The backing file answers. */
  | "unallocated"
  /** A host cluster is there, but the backing file answers. Only of subclusters. */
  | "unallocated-alloc"
  | "zero-plain"
  /** Zeroes, and a host cluster is kept for it. */
  | "zero-alloc"
  | "normal"
  | "compressed"
  /** The entry contradicts itself. */
  | "invalid";

/** Returns the host offset in bytes, bits 9 to 55; beyond 2^53 only roughly. */
export function entryOffset(high: number, low: number): number {
  return (high & OFFSET_HIGH_MASK) * HIGH + ((low & OFFSET_LOW_MASK) >>> 0);
}

/** Upper half of an entry for a host offset. */
export function highOf(offset: number): number {
  return Math.floor(offset / HIGH);
}

/** Lower half of an entry for a host offset. */
export function lowOf(offset: number): number {
  return (offset - Math.floor(offset / HIGH) * HIGH) >>> 0;
}

export function isCopied(high: number): boolean {
  return (high & COPIED_HIGH) !== 0;
}

/** Whether the host offset of an entry lies where files can be, at a cluster. */
export function isValidHostOffset(offset: number, { clusterSize }: Geometry): boolean {
  return offset <= HOST_OFFSET_MAX && offset % clusterSize === 0;
}

/**
 * What the first word of an L2 entry says of a cluster without subclusters.
 *
 * @param hasDataFile - an entry of host offset 0 that is marked as copied refers to the start of the data file
 * @see spec/qcow2.md section 3
 */
export function clusterKind(high: number, low: number, hasDataFile: boolean): ClusterKind {
  if ((high & COMPRESSED_HIGH) !== 0) return "compressed";
  const isAbsent = (high & OFFSET_HIGH_MASK) === 0 && (low & OFFSET_LOW_MASK) === 0;
  if ((low & ZERO_LOW) !== 0) return isAbsent ? "zero-plain" : "zero-alloc";
  if (!isAbsent) return "normal";
  return hasDataFile && isCopied(high) ? "normal" : "unallocated";
}

/**
 * What an extended L2 entry says of subcluster `index`.
 *
 * @param high - of the first word
 * @param low - of the first word
 * @param zeroes - upper half of the second word: bit i for subcluster i reads as zeroes
 * @param allocated - its lower half: bit i for subcluster i is in the host cluster
 */
export function subclusterKind(
  high: number,
  low: number,
  zeroes: number,
  allocated: number,
  index: number,
  hasDataFile: boolean,
): ClusterKind {
  if ((high & COMPRESSED_HIGH) !== 0) {
    return zeroes === 0 && allocated === 0 ? "compressed" : "invalid";
  }
  const isAbsent = (high & OFFSET_HIGH_MASK) === 0 && (low & OFFSET_LOW_MASK) === 0;
  const hasHost = !isAbsent || (hasDataFile && isCopied(high));
  const isZero = ((zeroes >>> index) & 1) === 1;
  if (!hasHost) {
    if (allocated !== 0) return "invalid";
    return isZero ? "zero-plain" : "unallocated";
  }
  if ((zeroes & allocated) !== 0) return "invalid";
  if (isZero) return "zero-alloc";
  return ((allocated >>> index) & 1) === 1 ? "normal" : "unallocated-alloc";
}

/** Where compressed data is stored. */
export interface CompressedRange {
  /** Bytes in the host file. */
  readonly offset: number;
  /** Bytes; the data may end earlier. */
  readonly length: number;
}

/** Decodes the descriptor of a compressed cluster. */
export function decodeCompressed(high: number, low: number, geometry: Geometry): CompressedRange {
  const highBits = geometry.compressedOffsetBits - 32;
  const offset = (high & (2 ** highBits - 1)) * HIGH + (low >>> 0);
  const sectors = (high & 0x3fffffff) >>> highBits;
  return { offset, length: (sectors + 1) * COMPRESSED_SECTOR - (offset % COMPRESSED_SECTOR) };
}

/** Returns the upper and lower half of the descriptor of compressed data. The offset fits, see {@link compressedOffsetMax}. */
export function encodeCompressed(
  { offset, length }: CompressedRange,
  geometry: Geometry,
): readonly [high: number, low: number] {
  const highBits = geometry.compressedOffsetBits - 32;
  const first = Math.floor(offset / COMPRESSED_SECTOR);
  const last = Math.floor((offset + length - 1) / COMPRESSED_SECTOR);
  const high = (highOf(offset) + (last - first) * 2 ** highBits + COMPRESSED_HIGH) >>> 0;
  return [high, lowOf(offset)];
}

/** The last host offset at which compressed data may begin. */
export function compressedOffsetMax(geometry: Geometry): number {
  return Math.min(2 ** geometry.compressedOffsetBits - 1, HOST_OFFSET_MAX);
}
