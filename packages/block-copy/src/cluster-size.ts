import type { BlockChild } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { isPowerOfTwo } from "@blocklayer/offsets";

/** Bytes: the smallest unit of copying. */
export const DEFAULT_CLUSTER_SIZE = 65536;
/** Bytes: 64 TiB, the coarsest bitmap there is. */
const CLUSTER_SIZE_MAX = 2 ** 46;

export interface ClusterSizeOptions {
  readonly target: BlockChild;
  /** Whether the target, below its filters, has a backing image. */
  readonly hasBacking: boolean;
  /** Bytes, a power of two or 0. Default 0. */
  readonly minClusterSize?: number;
  /** Told when the size is a guess that may make the target unusable. */
  readonly warn?: (message: string) => void;
}

/**
 * Returns the unit of copying for a target: large enough that a partly copied cluster of the target never has to
 * be completed from an image that is not there.
 *
 * @returns bytes, a power of two of at least {@link DEFAULT_CLUSTER_SIZE}
 * @throws BlockError `EINVAL` `minClusterSize` is no power of two, or above 2^46; or why the target's cluster size is not known
 * @see spec/copy-before-write-and-backup.md section 2
 */
export async function copyClusterSize(options: ClusterSizeOptions): Promise<number> {
  const { target, hasBacking, minClusterSize = 0 } = options;
  const context = { node: target.nodeName, minClusterSize };
  if (minClusterSize !== 0 && !isPowerOfTwo(minClusterSize)) {
    throw new BlockError("EINVAL", "min-cluster-size needs to be a power of 2", context);
  }
  if (minClusterSize > CLUSTER_SIZE_MAX) {
    const message = `min-cluster-size is larger than ${CLUSTER_SIZE_MAX} bytes`;
    throw new BlockError("EINVAL", message, context);
  }
  return Math.max(await targetClusterSize(target, hasBacking, options.warn), minClusterSize);
}

async function targetClusterSize(
  target: BlockChild,
  hasBacking: boolean,
  warn?: (message: string) => void,
): Promise<number> {
  try {
    const { clusterSize } = await target.getInfo();
    return Math.max(DEFAULT_CLUSTER_SIZE, clusterSize ?? 0);
  } catch (error) {
    // With a backing image the target completes a partial cluster from it, so any size works.
    if (hasBacking) return DEFAULT_CLUSTER_SIZE;
    if (error instanceof BlockError && error.code === "ENOTSUP") {
      warn?.(
        "The target block device doesn't provide information about the block size and it doesn't have a " +
          `backing file. The default block size of ${DEFAULT_CLUSTER_SIZE} bytes is used. If the actual block ` +
          "size of the target exceeds this default, the backup may be unusable",
      );
      return DEFAULT_CLUSTER_SIZE;
    }
    throw new BlockError(
      error instanceof BlockError ? error.code : "EIO",
      "Couldn't determine the cluster size of the target image, which has no backing file",
      { node: target.nodeName, operation: "getInfo" },
      { cause: error, hint: "Aborting, since this may create an unusable destination image" },
    );
  }
}
