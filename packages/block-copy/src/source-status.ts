import { type BlockChild, StatusFlag } from "@blocklayer/driver";
import { alignDown, alignUp } from "@blocklayer/offsets";

/** What a source has to offer for copying, in whole clusters. */
export interface ClusterRun {
  /** Bytes, whole clusters. */
  readonly length: number;
  /** Reads as zeroes. */
  readonly zero: boolean;
  /** Whether the source's top layer holds any of it. */
  readonly allocated: boolean;
}

/** The part of a source that is looked at. */
export interface SourceRange {
  readonly source: BlockChild;
  /** Bytes of the source. */
  readonly size: number;
  readonly clusterSize: number;
  /** Bytes, a multiple of the cluster size. */
  readonly offset: number;
}

/**
 * Returns what the first clusters of a range are. What is not known counts as one cluster of data: reading it
 * will tell.
 *
 * @param length - bytes, whole clusters
 * @param topOnly - ask the top layer alone
 * @see spec/copy-before-write-and-backup.md section 3.3, step 2
 */
export async function clustersAt(
  { source, size, clusterSize, offset }: SourceRange,
  length: number,
  topOnly: boolean,
): Promise<ClusterRun> {
  const inside = Math.min(length, size - offset);
  const unknown: ClusterRun = { length: clusterSize, zero: false, allocated: true };
  try {
    const status = topOnly
      ? await source.blockStatus(offset, inside)
      : await source.chainStatus(offset, inside);
    const isWhole = status.length === inside;
    if (!isWhole && status.length < clusterSize) return unknown;
    return {
      length: isWhole ? length : alignDown(status.length, clusterSize),
      zero: (status.flags & StatusFlag.zero) !== 0,
      allocated: (status.flags & StatusFlag.allocated) !== 0,
    };
  } catch {
    return unknown;
  }
}

/**
 * Returns the run of clusters at an offset that the source's top layer holds, or does not hold.
 *
 * @throws BlockError whatever asking the source reports
 * @see spec/copy-before-write-and-backup.md section 3.6
 */
export async function allocationAt({
  source,
  size,
  clusterSize,
  offset,
}: SourceRange): Promise<{ readonly allocated: boolean; readonly length: number }> {
  let unallocated = 0;
  while (unallocated < clusterSize) {
    const position = offset + unallocated;
    const run = await source.blockStatus(position, size - position, { wantZero: false });
    if ((run.flags & StatusFlag.allocated) !== 0 && run.length > 0) {
      // A cluster that is partly allocated counts as allocated.
      return { allocated: true, length: alignUp(unallocated + run.length, clusterSize) };
    }
    unallocated += run.length;
    if (run.length === 0 || offset + unallocated >= size) {
      return { allocated: false, length: alignUp(size - offset, clusterSize) };
    }
  }
  return { allocated: false, length: alignDown(unallocated, clusterSize) };
}
