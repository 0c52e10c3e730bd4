import {
  type BlockChild,
  type BlockDriver,
  RequestFlag,
  type RequestOptions,
} from "@blocklayer/driver";
import { isAligned } from "@blocklayer/offsets";
import type { Edge } from "../edge.ts";
import { driverOptions, stabilise, transferMax } from "./driver-transfer.ts";
import type { NodeIo } from "./node-io.ts";
import {
  checkEnd,
  checkTransfer,
  checkWritable,
  notSupported,
  type RequestName,
  requestError,
} from "./request-checks.ts";
import { change } from "./write-path.ts";

/** Where a copied range comes from or goes to. */
export interface CopyRange {
  readonly offset: number;
  /** Offset on the other side. */
  readonly otherOffset: number;
  readonly length: number;
}

/**
 * The reading side of an offloaded copy. The caller counts it as in flight.
 *
 * @see spec/graph.md section 7.10
 */
export async function copyRangeFrom(
  io: NodeIo,
  target: BlockChild,
  { offset, otherOffset, length }: CopyRange,
  options: RequestOptions | undefined,
): Promise<void> {
  const { node } = io;
  const name: RequestName = { operation: "copyRangeFrom", offset, length };
  checkTransfer(node, name);
  if (length === 0) return;
  if (node.driver.copyRangeFrom === undefined) throw notSupported(node, name, "offloaded copies");
  refuseOddRange(io, name);
  refuseBeyondEnd(io, name);
  options?.signal?.throwIfAborted();
  const request = io.tracker.begin("read", offset, length);
  try {
    await io.tracker.waitForConflicts(request, options?.signal);
    // The node may have become shorter meanwhile.
    refuseBeyondEnd(io, name);
    // The flags are about the writing side.
    const forDriver = driverOptions(options?.flags ?? 0, options?.signal);
    await inPieces(io, length, (position, pieceLength) =>
      node.driver.copyRangeFrom?.(
        offset + position,
        target,
        otherOffset + position,
        pieceLength,
        forDriver,
      ),
    );
  } finally {
    io.tracker.end(request);
  }
}

/** The writing side of an offloaded copy: a write as any other to those who wait for it and watch it. */
export async function copyRangeTo(
  io: NodeIo,
  edge: Edge,
  source: BlockDriver,
  { offset, otherOffset, length }: CopyRange,
  options: RequestOptions | undefined,
): Promise<void> {
  const { node } = io;
  const flags = options?.flags ?? 0;
  const name: RequestName = { operation: "copyRangeTo", offset, length };
  checkTransfer(node, name);
  checkWritable(node, edge, name, flags);
  if (length === 0) return;
  checkEnd(node, edge, name);
  if (node.driver.copyRangeTo === undefined) throw notSupported(node, name, "offloaded copies");
  refuseOddRange(io, name);
  options?.signal?.throwIfAborted();
  const request = io.tracker.begin("write", offset, length);
  try {
    await io.tracker.waitForConflicts(request, options?.signal);
    checkEnd(node, edge, name);
    // A driver that writes `fua` natively need not copy so.
    const known = flags & node.driver.flags.write & ~RequestFlag.fua;
    const forDriver = driverOptions(known, options?.signal);
    await change(io, "write", offset, length, flags, async () => {
      await inPieces(io, length, (position, pieceLength) =>
        node.driver.copyRangeTo?.(
          source,
          otherOffset + position,
          offset + position,
          pieceLength,
          forDriver,
        ),
      );
      if ((flags & RequestFlag.fua) !== 0) await stabilise(io);
    });
  } finally {
    io.tracker.end(request);
  }
}

function refuseBeyondEnd(io: NodeIo, name: RequestName): void {
  const { offset, length } = name;
  if (offset + length <= io.node.size) return;
  const message = `offloaded copy of ${length} bytes at ${offset} ends beyond the node`;
  throw requestError(io.node, "ENOTSUP", message, name);
}

/** What is not aligned cannot be padded when the bytes do not pass through here; the caller reads and writes. */
function refuseOddRange(io: NodeIo, name: RequestName): void {
  const alignment = io.node.limits.requestAlignment;
  const { offset, length } = name;
  if (isAligned(offset, alignment) && isAligned(length, alignment)) return;
  throw requestError(
    io.node,
    "ENOTSUP",
    `offloaded copy of ${length} bytes at ${offset} is not aligned to ${alignment}`,
    name,
  );
}

async function inPieces(
  io: NodeIo,
  length: number,
  work: (position: number, pieceLength: number) => Promise<void> | undefined,
): Promise<void> {
  const lengthMax = transferMax(io.node.limits);
  for (let position = 0; position < length; position += lengthMax) {
    await work(position, Math.min(lengthMax, length - position));
  }
}
