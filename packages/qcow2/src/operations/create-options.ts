import type { Preallocation } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { alignUp, isPowerOfTwo, log2, MAX_LENGTH } from "@blocklayer/offsets";
import {
  boolean,
  enumeration,
  integer,
  object,
  optional,
  type Schema,
  size,
  string,
} from "@blocklayer/schema";
import {
  CLUSTER_BITS_MAX,
  CLUSTER_BITS_MIN,
  COMPRESSION_TYPES,
  type CompressionType,
  EXTENDED_CLUSTER_MIN,
  L1_BYTES_MAX,
} from "../format/constants.ts";
import { Geometry } from "../format/geometry.ts";

/** Options of `create`, as QMP names them. Sizes in bytes. */
export interface Qcow2CreateOptions {
  /** Of the disk, rounded up to a multiple of 512. */
  readonly size: number;
  /** Default `"v3"`. */
  readonly version: "v2" | "v3";
  /** A power of two from 512 to 2 MiB. Default 65536. */
  readonly "cluster-size": number;
  /** Name of the backing file, as the image will hold it. */
  readonly "backing-file"?: string;
  /** Its format. */
  readonly "backing-fmt"?: string;
  /** Default `"off"`. */
  readonly preallocation: Preallocation;
  /** Default `false`. */
  readonly "lazy-refcounts": boolean;
  /** Bits of a reference count, a power of two up to 64. Default 16. */
  readonly "refcount-bits": number;
  /** Name of the external data file, as the image will hold it. */
  readonly "data-file"?: string;
  /** The data file alone is the disk. Default `false`. */
  readonly "data-file-raw": boolean;
  /** Clusters have 32 parts that are allocated one by one. Default `false`. */
  readonly "extended-l2": boolean;
  /** Default `"zlib"`. */
  readonly "compression-type": CompressionType;
}

export const createSchema: Schema<Qcow2CreateOptions> = object({
  size: size({ max: MAX_LENGTH }),
  version: optional(enumeration("v2", "v3"), "v3"),
  "cluster-size": optional(size({ max: MAX_LENGTH }), 65536),
  "backing-file": optional(string()),
  "backing-fmt": optional(string()),
  preallocation: optional(enumeration("off", "metadata", "falloc", "full"), "off"),
  "lazy-refcounts": optional(boolean(), false),
  "refcount-bits": optional(integer({ min: 0, max: 2 ** 31 - 1 }), 16),
  "data-file": optional(string()),
  "data-file-raw": optional(boolean(), false),
  "extended-l2": optional(boolean(), false),
  "compression-type": optional(enumeration(...COMPRESSION_TYPES), "zlib"),
});

const ONLY_V3 = "with compatibility level 1.1 and above (use version=v3 or greater)";

/**
 * Checks options that have to go together.
 *
 * @returns the sizes that follow from them
 * @throws BlockError `EINVAL`; `EFBIG` the disk is too large for its clusters
 * @see spec/qcow2.md section 15
 */
export function checkCreateOptions(options: Qcow2CreateOptions): Geometry {
  const clusterSize = options["cluster-size"];
  const isCluster =
    isPowerOfTwo(clusterSize) &&
    clusterSize >= 2 ** CLUSTER_BITS_MIN &&
    clusterSize <= 2 ** CLUSTER_BITS_MAX;
  if (!isCluster) {
    throw invalid("Cluster size must be a power of two between 512 and 2048k", { clusterSize });
  }
  const bits = options["refcount-bits"];
  if (!isPowerOfTwo(bits) || bits > 64) {
    throw invalid("Refcount width must be a power of two and may not exceed 64 bits", { bits });
  }
  if (options["extended-l2"] && clusterSize < EXTENDED_CLUSTER_MIN) {
    const least = `at least ${EXTENDED_CLUSTER_MIN} bytes`;
    throw invalid(`Extended L2 entries are only supported with cluster sizes of ${least}`, {
      clusterSize,
    });
  }
  if (options.version === "v2") checkV2(options);
  checkFiles(options);
  const geometry = new Geometry({
    clusterBits: log2(clusterSize),
    extendedL2: options["extended-l2"],
    refcountOrder: log2(bits),
  });
  if (geometry.l1EntriesFor(alignUp(options.size, 512)) * 8 > L1_BYTES_MAX) {
    const message =
      "The image size is too large for file format 'qcow2' (try using a larger cluster size)";
    throw new BlockError("EFBIG", message, { size: options.size, clusterSize });
  }
  return geometry;
}

function checkV2(options: Qcow2CreateOptions): void {
  if (options["lazy-refcounts"]) throw invalid(`Lazy refcounts only supported ${ONLY_V3}`);
  if (options["refcount-bits"] !== 16) {
    const what = "Different refcount widths than 16 bits require compatibility level 1.1 or above";
    throw invalid(`${what} (use version=v3 or greater)`);
  }
  if (options["extended-l2"]) {
    throw invalid(`Extended L2 entries are only supported ${ONLY_V3}`);
  }
  if (options["compression-type"] !== "zlib") {
    throw invalid(`Non-zlib compression type is only supported ${ONLY_V3}`);
  }
  if (options["data-file"] !== undefined) {
    throw invalid(`External data files are only supported ${ONLY_V3}`);
  }
}

function checkFiles(options: Qcow2CreateOptions): void {
  const backing = options["backing-file"];
  if (options["data-file-raw"]) {
    if (options["data-file"] === undefined) throw invalid("data-file-raw requires data-file");
    if (backing !== undefined) {
      throw invalid("Backing file and data-file-raw cannot be used at the same time");
    }
  }
  if (backing === undefined && options["backing-fmt"] !== undefined) {
    throw invalid("Backing format cannot be used without backing file");
  }
  if (backing !== undefined && options.preallocation !== "off" && !options["extended-l2"]) {
    const what = "Backing file and preallocation can only be used at the same time";
    throw invalid(`${what} if extended_l2 is on`);
  }
}

function invalid(message: string, context: Readonly<Record<string, unknown>> = {}): BlockError {
  return new BlockError("EINVAL", message, context);
}
