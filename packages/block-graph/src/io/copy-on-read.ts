import { RequestFlag } from "@blocklayer/driver";
import { alignDown, alignUp } from "@blocklayer/offsets";
import {
  bounceMax,
  driverRead,
  driverReadUnaligned,
  driverWrite,
  driverZeroes,
} from "./driver-transfer.ts";
import type { NodeIo } from "./node-io.ts";
import { isZeroFilled, Payload } from "./payload.ts";
import { isNotSupported } from "./request-checks.ts";
import { type AllocationRun, isAllocated } from "./status-queries.ts";

/** Returns the unit in which the node allocates, in bytes: at least its request alignment. */
export async function clusterSizeOf(io: NodeIo): Promise<number> {
  const alignment = io.node.limits.requestAlignment;
  try {
    const { clusterSize } = await io.getInfo();
    return clusterSize === undefined ? alignment : Math.max(clusterSize, alignment);
  } catch (error) {
    if (isNotSupported(error)) return alignment;
    throw error;
  }
}

/** How a range is read while it is copied into the layer. */
export interface CopyOnReadOptions {
  /** Bytes. */
  readonly clusterSize: number;
  /** Leave the caller's buffer as it is. */
  readonly skipsData: boolean;
}

/**
 * Reads a range and writes what this layer does not hold into it, in whole clusters. The request serialises on those
 * clusters already, so a guest's write to them comes before or after, and nothing newer is overwritten.
 *
 * What is written does not change what the node shows: observers are not told. A failed write fails the read.
 *
 * @see spec/graph.md section 7.5; docs/reliability.md CR-1
 */
export async function copyOnRead(
  io: NodeIo,
  offset: number,
  buffer: Uint8Array,
  { clusterSize, skipsData }: CopyOnReadOptions,
): Promise<void> {
  const { limits, size } = io.node;
  const alignment = limits.requestAlignment;
  const stop = offset + buffer.length;
  const end = Math.min(alignUp(stop, clusterSize), alignUp(size, alignment));
  let position = alignDown(offset, clusterSize);
  while (position < end) {
    const run = await allocationRun(io, position, end - position);
    if (run.length === 0) break;
    const runEnd = Math.min(end, alignUp(position + run.length, alignment));
    if (!run.allocated) {
      const length = Math.min(runEnd - position, bounceMax(limits));
      const bounce = await copyIn(io, position, length);
      if (!skipsData) copyOverlap(bounce, position, buffer, offset);
      position += length;
    } else {
      const from = Math.max(position, offset);
      const to = Math.min(runEnd, stop);
      if (!skipsData && from < to) {
        await driverReadUnaligned(io, from, buffer.subarray(from - offset, to - offset));
      }
      position = runEnd;
    }
  }
  if (!skipsData && position < stop) buffer.fill(0, Math.max(0, position - offset));
}

/** A query that fails counts as "not allocated": copying what is there already is no harm. */
async function allocationRun(io: NodeIo, offset: number, length: number): Promise<AllocationRun> {
  try {
    return await isAllocated(io.node, offset, Math.min(length, io.node.size - offset));
  } catch {
    return { allocated: false, length };
  }
}

async function copyIn(io: NodeIo, offset: number, length: number): Promise<Uint8Array> {
  const bounce = new Uint8Array(length);
  await driverRead(io, offset, bounce);
  const flags = RequestFlag.writeUnchanged;
  if (io.node.driver.zeroes === "native" && isZeroFilled(bounce)) {
    await driverZeroes(io, offset, length, flags);
  } else {
    await driverWrite(io, offset, new Payload([bounce]), flags);
  }
  // The layer has something to flush now, though nothing visible changed.
  io.writeGeneration += 1;
  return bounce;
}

function copyOverlap(
  source: Uint8Array,
  sourceOffset: number,
  target: Uint8Array,
  targetOffset: number,
): void {
  const from = Math.max(sourceOffset, targetOffset);
  const to = Math.min(sourceOffset + source.length, targetOffset + target.length);
  if (from < to)
    target.set(source.subarray(from - sourceOffset, to - sourceOffset), from - targetOffset);
}
