import { type BlockChild, type MeasureResult, StatusFlag } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { alignUp, divideUp } from "@blocklayer/offsets";
import type { Geometry } from "../format/geometry.ts";
import { checkCreateOptions, type Qcow2CreateOptions } from "./create-options.ts";

/** Bytes of a source that are asked about at a time. */
const STEP: number = 2 ** 30;

/**
 * Says how large an image file will be: as the options say, and for the content of a source.
 *
 * @param source - its size and what of it holds data; without it a disk without data
 * @throws BlockError `EINVAL` options that do not go together, or no size
 * @see spec/qcow2.md section 18
 */
export async function measureImage(
  options: unknown,
  source: BlockChild | undefined,
): Promise<MeasureResult> {
  const given = options as Qcow2CreateOptions;
  const geometry = checkCreateOptions(given);
  const size = alignUp(source?.size ?? given.size, geometry.clusterSize);
  const metadata = metadataBytes(size, geometry);
  const isWhole =
    given["backing-file"] !== undefined ||
    given.preallocation === "falloc" ||
    given.preallocation === "full";
  const data = isWhole ? size : await dataBytes(source, geometry);
  return { required: metadata + data, fullyAllocated: metadata + size };
}

/** Bytes of everything but data, for a disk of whole clusters whose data is all there. */
export function metadataBytes(size: number, geometry: Geometry): number {
  const { clusterSize, entrySize, l2Entries } = geometry;
  const l2Bytes = alignUp(size / clusterSize, l2Entries) * entrySize;
  const l1Bytes = alignUp(l2Bytes / clusterSize, clusterSize / 8) * 8;
  const meta = clusterSize + l2Bytes + l1Bytes;
  return meta + refcountBytes((meta + size) / clusterSize, geometry);
}

/** Bytes of the refcount structures for so many clusters, their own included. */
function refcountBytes(clusters: number, { clusterSize, refcountsPerBlock }: Geometry): number {
  let blocks = 0;
  let table = 0;
  for (;;) {
    const nextBlocks = divideUp(clusters + table + blocks, refcountsPerBlock);
    const nextTable = divideUp(nextBlocks, clusterSize / 8);
    if (nextBlocks === blocks && nextTable === table) return (blocks + table) * clusterSize;
    blocks = nextBlocks;
    table = nextTable;
  }
}

/** Bytes of the clusters that hold data of the source. */
async function dataBytes(
  source: BlockChild | undefined,
  { clusterSize }: Geometry,
): Promise<number> {
  if (source === undefined) return 0;
  let bytes = 0;
  let end = 0;
  for (let at = 0; at < source.size; ) {
    const { flags, length } = await source.chainStatus(at, Math.min(STEP, source.size - at));
    if (length === 0) throw new BlockError("EIO", "the source tells nothing", { offset: at });
    const isData = (flags & StatusFlag.data) !== 0 && (flags & StatusFlag.zero) === 0;
    if (isData) {
      const from = Math.max(end, at - (at % clusterSize));
      end = alignUp(at + length, clusterSize);
      bytes += Math.max(0, end - from);
    }
    at += length;
  }
  return bytes;
}
