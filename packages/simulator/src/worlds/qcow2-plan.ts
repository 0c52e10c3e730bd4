import type { Decisions } from "../decisions.ts";

/** How an image is made, and how it is opened. Sizes in bytes. */
export interface Qcow2Shape {
  readonly version: "v2" | "v3";
  readonly clusterSize: number;
  readonly extendedL2: boolean;
  readonly refcountBits: number;
  readonly lazyRefcounts: boolean;
  /** Of the disk, at first. */
  readonly size: number;
  /** The longest the disk may become. */
  readonly capacity: number;
  /** What requests of guests are multiples of. */
  readonly cellSize: number;
  readonly backing: "none" | "raw" | "qcow2";
  readonly backingSize: number;
  /** The first block of counts is nearly full: the L1 table is longer than it has to be. */
  readonly isCrowded: boolean;
  /** The image says that there are features which nobody here knows and nobody has to. */
  readonly hasUnknown: boolean;
  /** Options of the node, without its children. */
  readonly options: Readonly<Record<string, boolean | number>>;
  readonly discard: "unmap" | "ignore";
}

/** Draws an image. */
export function drawShape(decisions: Decisions): Qcow2Shape {
  const kind = decisions.weighted("clusters", [6, 3, 2, 1]);
  const clusterSize = [512, 1024, 4096, 16384][kind] ?? 512;
  const extendedL2 = clusterSize === 16384;
  const isV2 = !extendedL2 && decisions.weighted("version", [4, 1]) === 1;
  const refcountBits = isV2
    ? 16
    : decisions.among("refcount bits", [16, 64, 64, 64, 1, 8, 2, 4, 32]);
  const lazyRefcounts = !isV2 && decisions.chance("lazy refcounts", 1, 4);
  // Where a cluster is one sector there is room for more tables than fit the smallest cache.
  const isWide = clusterSize === 512 && decisions.chance("wide", 1, 4);
  const clusters = (isWide ? 160 : 4) + decisions.choose("clusters of the disk", 9);
  const size = clusters * clusterSize - (decisions.chance("ends in a cluster", 1, 4) ? 512 : 0);
  const room = clusterSize * decisions.among("room to grow", [0, 4, 16]);
  const more = clusterSize === 512 && room > 0 ? 64 * clusterSize : 0;
  const parts = extendedL2 ? ([32, 64, 16] as const) : ([4, 1, 2] as const);
  const cellParts = isWide ? 1 : decisions.among("cells of a cluster", parts);
  const cellSize = Math.min(clusterSize / cellParts, 512);
  const backing = decisions.among("backing", ["none", "raw", "qcow2"]);
  const part = decisions.among("backing length", [1, 0.5, 2]);
  const backingSize = Math.ceil(Math.min(size * part, size + room) / 512) * 512;
  return {
    version: isV2 ? "v2" : "v3",
    clusterSize,
    extendedL2,
    refcountBits,
    lazyRefcounts,
    size,
    capacity: clusters * clusterSize + room + more,
    cellSize,
    backing,
    backingSize: backing === "none" ? 0 : backingSize,
    isCrowded: clusterSize === 512 && refcountBits === 64 && decisions.chance("crowded", 3, 4),
    hasUnknown: !isV2 && decisions.chance("unknown features", 1, 8),
    options: drawOptions(decisions, clusterSize),
    discard: decisions.among("discard", ["unmap", "ignore"]),
  };
}

function drawOptions(
  decisions: Decisions,
  clusterSize: number,
): Readonly<Record<string, boolean | number>> {
  const options: Record<string, boolean | number> = {};
  if (decisions.chance("small caches", 1, 2)) {
    options["l2-cache-size"] = 2 * clusterSize;
    options["l2-cache-entry-size"] = 512;
    options["refcount-cache-size"] = clusterSize;
  }
  if (decisions.chance("passes discards", 1, 2)) {
    options["pass-discard-request"] = decisions.chance("of requests", 1, 2);
    options["pass-discard-snapshot"] = decisions.chance("of snapshots", 1, 2);
    options["pass-discard-other"] = decisions.chance("of metadata", 1, 2);
  }
  return options;
}
