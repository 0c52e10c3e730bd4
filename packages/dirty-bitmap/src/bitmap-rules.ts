import type { BlockNode } from "@blocklayer/block-graph";
import { BlockError, textOfErrno } from "@blocklayer/errors";
import { isPowerOfTwo } from "@blocklayer/offsets";

/** Bytes of the longest name, in UTF-8. */
export const MAX_NAME_BYTES = 1023;

const MIN_GRANULARITY = 512;
const MAX_GRANULARITY = 2 ** 31;

/** Where the default granularity is kept, and what it is when the format does not tell. */
const MIN_DEFAULT_GRANULARITY = 4096;
const MAX_DEFAULT_GRANULARITY = 65536;

const encoder = new TextEncoder();

/** @throws BlockError `EINVAL` */
export function checkNotEmpty(name: string): void {
  if (name !== "") return;
  throw new BlockError("EINVAL", "Bitmap name cannot be empty", { bitmap: name });
}

/** @throws BlockError `EINVAL` */
export function checkNameLength(name: string): void {
  if (encoder.encode(name).length <= MAX_NAME_BYTES) return;
  throw new BlockError("EINVAL", `Bitmap name too long: ${name}`, {
    bitmap: name,
    limit: MAX_NAME_BYTES,
  });
}

/** @throws BlockError `EINVAL` */
export function checkGranularity(granularity: number): void {
  const fits = granularity >= MIN_GRANULARITY && granularity <= MAX_GRANULARITY;
  if (fits && isPowerOfTwo(granularity)) return;
  const message = `Granularity must be power of 2 and at least ${MIN_GRANULARITY}`;
  throw new BlockError("EINVAL", message, { granularity });
}

/** What an `HBitmap` takes. */
const MAX_BITS = 2 ** 36;

/** @throws BlockError `EFBIG` the node is too large for so fine a bitmap */
export function checkBitCount(node: BlockNode, size: number, granularity: number): void {
  if (size / granularity <= MAX_BITS) return;
  throw new BlockError(
    "EFBIG",
    `a bitmap of ${size} bytes with granularity ${granularity} has more than ${MAX_BITS} bits`,
    { node: node.name, size, granularity },
    { hint: "choose a larger granularity" },
  );
}

/**
 * The granularity of a bitmap that asks for none: the cluster size of the node's format, from 4096 to 65536 bytes.
 *
 * @see spec/dirty-bitmap.md section 1
 */
export async function defaultGranularity(node: BlockNode): Promise<number> {
  const clusterSize = await clusterSizeOf(node);
  if (clusterSize === 0 || !isPowerOfTwo(clusterSize)) return MAX_DEFAULT_GRANULARITY;
  return Math.min(Math.max(clusterSize, MIN_DEFAULT_GRANULARITY), MAX_DEFAULT_GRANULARITY);
}

async function clusterSizeOf(node: BlockNode): Promise<number> {
  try {
    const { clusterSize } = await node.io.getInfo();
    return clusterSize ?? 0;
  } catch (error) {
    // A format that tells nothing of itself has no clusters.
    if (error instanceof BlockError && error.code === "ENOTSUP") return 0;
    throw error;
  }
}

export function bitmapExists(node: BlockNode, name: string): BlockError {
  const context = { node: node.name, bitmap: name };
  return new BlockError("EEXIST", `Bitmap already exists: ${name}`, context);
}

export function bitmapNotFound(nodeName: string, name: string): BlockError {
  const context = { node: nodeName, bitmap: name };
  return new BlockError("ENOENT", `Dirty bitmap '${name}' not found`, context);
}

export function bitmapBusy(nodeName: string, name: string): BlockError {
  const context = { node: nodeName, bitmap: name };
  const message = `Bitmap '${name}' is currently in use by another operation and cannot be used`;
  return new BlockError("EBUSY", message, context);
}

export function notStorable(node: BlockNode, name: string): BlockError {
  const message = `Can't store persistent bitmaps to ${node.name}: ${textOfErrno("ENOTSUP")}`;
  return new BlockError("ENOTSUP", message, { node: node.name, bitmap: name });
}
