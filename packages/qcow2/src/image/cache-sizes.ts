import { BlockError } from "@blocklayer/errors";
import { alignUp, divideUp, isPowerOfTwo } from "@blocklayer/offsets";
import type { Geometry } from "../format/geometry.ts";

/** Bytes of L2 tables that are kept by default. */
const L2_CACHE_MAX: number = 32 * 2 ** 20;
/** Bytes of a slice where not all tables fit. */
const SLICE = 4096;
const SLICES_MIN = 2;
const REFCOUNT_BLOCKS_MIN = 4;

/** Options of the caches, in bytes. */
export interface CacheOptions {
  readonly "cache-size"?: number | undefined;
  readonly "l2-cache-size"?: number | undefined;
  readonly "l2-cache-entry-size"?: number | undefined;
  readonly "refcount-cache-size"?: number | undefined;
}

/** How much metadata is kept in memory. */
export interface CacheSizes {
  /** Bytes of a slice of an L2 table. */
  readonly sliceSize: number;
  /** Slices to keep. */
  readonly slices: number;
  /** Refcount blocks to keep. */
  readonly refcountBlocks: number;
}

/**
 * Computes how much metadata to keep: by default all L2 tables of the disk up to 32 MiB.
 *
 * @param diskSize - bytes
 * @throws BlockError `EINVAL` options that contradict each other
 * @see spec/qcow2.md section 7
 */
export function cacheSizes(
  options: CacheOptions,
  geometry: Geometry,
  diskSize: number,
): CacheSizes {
  const { clusterSize, entrySize } = geometry;
  const { l2Bytes, refcountBytes } = split(options, geometry, diskSize);
  const everything = alignUp(divideUp(diskSize, clusterSize) * entrySize, clusterSize);
  const entrySizeGiven = options["l2-cache-entry-size"];
  const sliceSize =
    entrySizeGiven ?? (l2Bytes >= everything ? clusterSize : Math.min(clusterSize, SLICE));
  if (!isPowerOfTwo(sliceSize) || sliceSize < 512 || sliceSize > clusterSize) {
    const message = `L2 cache entry size must be a power of two between 512 and the cluster size (${clusterSize})`;
    throw new BlockError("EINVAL", message, { value: sliceSize });
  }
  return {
    sliceSize,
    slices: Math.max(SLICES_MIN, Math.floor(l2Bytes / sliceSize)),
    refcountBlocks: Math.max(REFCOUNT_BLOCKS_MIN, Math.floor(refcountBytes / clusterSize)),
  };
}

function split(
  options: CacheOptions,
  { clusterSize, entrySize }: Geometry,
  diskSize: number,
): { readonly l2Bytes: number; readonly refcountBytes: number } {
  const both = options["cache-size"];
  const l2Given = options["l2-cache-size"];
  const refcountGiven = options["refcount-cache-size"];
  const everything = alignUp(divideUp(diskSize, clusterSize) * entrySize, clusterSize);
  const least = REFCOUNT_BLOCKS_MIN * clusterSize;
  if (both === undefined) {
    return {
      l2Bytes: l2Given ?? Math.min(L2_CACHE_MAX, everything),
      refcountBytes: refcountGiven ?? least,
    };
  }
  if (l2Given !== undefined && refcountGiven !== undefined) {
    const message =
      "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time";
    throw new BlockError("EINVAL", message);
  }
  const tooLarge = (name: string, value: number): BlockError =>
    new BlockError("EINVAL", `${name} may not exceed cache-size`, { value, limit: both });
  if (l2Given !== undefined) {
    if (l2Given > both) throw tooLarge("l2-cache-size", l2Given);
    return { l2Bytes: l2Given, refcountBytes: both - l2Given };
  }
  if (refcountGiven !== undefined) {
    if (refcountGiven > both) throw tooLarge("refcount-cache-size", refcountGiven);
    return { l2Bytes: both - refcountGiven, refcountBytes: refcountGiven };
  }
  const l2Bytes = both <= least ? both : Math.min(everything, both - least);
  return { l2Bytes, refcountBytes: Math.max(least, both - l2Bytes) };
}
