import { type BlockLimits, completed, type RequestOptions } from "@blocklayer/driver";
import { alignDown, alignUp } from "@blocklayer/offsets";
import type { BlockNode } from "../block-node.ts";
import type { Edge } from "../edge.ts";
import { driverOptions, unitMax } from "./driver-transfer.ts";
import type { NodeIo } from "./node-io.ts";
import {
  checkRange,
  checkWritable,
  isNotSupported,
  type RequestName,
  requestError,
} from "./request-checks.ts";
import { change } from "./write-path.ts";

/**
 * Tells the driver that a range is not needed any more. The caller counts it as in flight.
 *
 * A discard is advice: bytes of incomplete blocks stay, a piece that the driver cannot discard stays.
 *
 * @see spec/graph.md section 7.8
 */
export async function discardRange(
  io: NodeIo,
  edge: Edge,
  offset: number,
  length: number,
  options: RequestOptions | undefined,
): Promise<void> {
  const { node } = io;
  const name: RequestName = { operation: "pdiscard", offset, length };
  checkRange(node, name);
  checkInside(node, name);
  if (length === 0 || node.options.discard === "ignore" || node.driver.pdiscard === undefined)
    return;
  const flags = options?.flags ?? 0;
  checkWritable(node, edge, name, flags);
  options?.signal?.throwIfAborted();
  const request = io.tracker.begin("discard", offset, length);
  try {
    await io.tracker.waitForConflicts(request, options?.signal);
    // The node may have become shorter meanwhile.
    checkInside(node, name);
    await change(io, "discard", offset, length, flags, () =>
      discardPieces(io, offset, offset + length, driverOptions(0, options?.signal)),
    );
  } finally {
    io.tracker.end(request);
  }
}

/** A discard never makes a node longer, whatever the edge may do. */
function checkInside(node: BlockNode, name: RequestName): void {
  const { offset, length } = name;
  if (offset + length <= node.size) return;
  const message = `discard of ${length} bytes at ${offset} ends beyond the ${node.size} bytes of the node`;
  throw requestError(node, "EIO", message, name);
}

async function discardPieces(
  io: NodeIo,
  offset: number,
  stop: number,
  options: RequestOptions | undefined,
): Promise<void> {
  const { driver, limits } = io.node;
  const end = alignDown(stop, limits.requestAlignment);
  let position = alignUp(offset, limits.requestAlignment);
  while (position < end) {
    const length = discardPieceLength(limits, position, end);
    await ignoringNotSupported(driver.pdiscard?.(position, length, options) ?? completed);
    position += length;
  }
}

function discardPieceLength(limits: BlockLimits, position: number, end: number): number {
  const { requestAlignment, pdiscardAlignment, maxPdiscard } = limits;
  const alignment = Math.max(pdiscardAlignment, requestAlignment);
  const boundary = alignUp(position, alignment);
  const lengthMax = unitMax(maxPdiscard, alignment, requestAlignment);
  if (boundary > position) return Math.min(boundary - position, end - position, lengthMax);
  const whole = alignDown(end - position, alignment);
  return Math.min(whole === 0 ? end - position : whole, lengthMax);
}

async function ignoringNotSupported(promise: Promise<void>): Promise<void> {
  try {
    await promise;
  } catch (error) {
    if (!isNotSupported(error)) throw error;
  }
}
