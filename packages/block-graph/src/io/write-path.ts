import { RequestFlag, type RequestOptions, type WriteKind } from "@blocklayer/driver";
import { alignDown, alignUp } from "@blocklayer/offsets";
import type { BlockNode } from "../block-node.ts";
import type { Edge } from "../edge.ts";
import { clusterSizeOf } from "./copy-on-read.ts";
import {
  driverRead,
  driverWrite,
  driverZeroes,
  stabilise,
  zeroesNeedFlush,
} from "./driver-transfer.ts";
import type { NodeIo } from "./node-io.ts";
import { Payload } from "./payload.ts";
import {
  checkEnd,
  checkRange,
  checkTransfer,
  checkWritable,
  notSupported,
  type RequestName,
  requestError,
} from "./request-checks.ts";
import type { TrackedRequest } from "./tracked-request.ts";

/** A range in the caller's bytes and in whole blocks of the driver's alignment. */
interface AlignedRange {
  readonly offset: number;
  /** End of the caller's range. */
  readonly stop: number;
  readonly start: number;
  readonly end: number;
  readonly isPadded: boolean;
}

function alignRange(io: NodeIo, offset: number, length: number): AlignedRange {
  const alignment = io.node.limits.requestAlignment;
  const stop = offset + length;
  const start = alignDown(offset, alignment);
  const end = alignUp(stop, alignment);
  return { offset, stop, start, end, isPadded: start !== offset || end !== stop };
}

/**
 * Writes any range: the general form of what `NodeIo.pwrite` does fast. The caller counts it as in flight.
 *
 * A range that is not aligned is completed with the bytes around it, which are read first; the request overlaps with
 * no other from before that read.
 *
 * Differs: a failure of that read fails the write.
 *
 * @see spec/graph.md section 7.6
 */
export async function writeRange(
  io: NodeIo,
  edge: Edge,
  offset: number,
  payload: Payload,
  options: RequestOptions | undefined,
): Promise<void> {
  const { node } = io;
  const flags = options?.flags ?? 0;
  const name: RequestName = { operation: "pwrite", offset, length: payload.length };
  checkTransfer(node, name);
  checkWritable(node, edge, name, flags);
  if (payload.length === 0) return;
  checkEnd(node, edge, name);
  const compressed = (flags & RequestFlag.compressed) !== 0;
  if (compressed && (node.driver.flags.write & RequestFlag.compressed) === 0) {
    throw notSupported(node, name, "compressed writes");
  }
  const range = alignRange(io, offset, payload.length);
  if (range.isPadded) refuseUnaligned(io, name, flags);
  await tracked(io, "write", range, options, async () => {
    // The node may have become shorter while the request waited.
    checkEnd(node, edge, name, range.end);
    const whole = range.isPadded ? await complete(io, range, payload) : payload;
    await issueWrite(io, range.start, whole, flags, options?.signal);
  });
}

/**
 * Zeroes any range. The caller counts it as in flight.
 *
 * @see spec/graph.md section 7.7
 */
export async function zeroRange(
  io: NodeIo,
  edge: Edge,
  offset: number,
  length: number,
  options: RequestOptions | undefined,
): Promise<void> {
  const { node } = io;
  const name: RequestName = { operation: "pwriteZeroes", offset, length };
  let flags = options?.flags ?? 0;
  checkRange(node, name);
  checkWritable(node, edge, name, flags);
  if (length === 0) return;
  checkEnd(node, edge, name);
  if (node.driver.zeroes === "none") throw notSupported(node, name, "writing zeroes");
  if (node.options.discard === "ignore") flags &= ~RequestFlag.mayUnmap;
  const range = alignRange(io, offset, length);
  if (range.isPadded) refuseUnaligned(io, name, flags);
  await tracked(io, "zeroes", range, options, () => {
    checkEnd(node, edge, name, range.end);
    return change(io, "zeroes", range.start, range.end - range.start, flags, async () => {
      await zeroAligned(io, range, flags, options?.signal);
      if (zeroesNeedFlush(io, flags)) await stabilise(io);
    });
  });
}

/** Tracks a write while `work` runs, which begins when nobody overlaps who may not. */
async function tracked(
  io: NodeIo,
  kind: "write" | "zeroes",
  range: AlignedRange,
  options: RequestOptions | undefined,
  work: () => Promise<void>,
): Promise<void> {
  options?.signal?.throwIfAborted();
  const flags = options?.flags ?? 0;
  const isExclusive = (flags & RequestFlag.serialising) !== 0;
  const clusterSize = isExclusive ? await clusterSizeOf(io) : 1;
  const unwound = isExclusive || range.isPadded ? io.unwindStack() : undefined;
  if (unwound !== undefined) await unwound;
  const request = io.tracker.begin(kind, range.start, range.end - range.start);
  try {
    if (isExclusive) io.tracker.serialise(request, clusterSize);
    if (range.isPadded) io.tracker.serialise(request, io.node.limits.requestAlignment);
    if (isExclusive && (flags & RequestFlag.noWait) !== 0) refuseToWait(io, request, range);
    await io.tracker.waitForConflicts(request, options?.signal);
    await work();
  } finally {
    io.tracker.end(request);
  }
}

function refuseToWait(io: NodeIo, request: TrackedRequest, range: AlignedRange): void {
  if (range.isPadded || !io.tracker.hasConflict(request)) return;
  const { offset, stop } = range;
  const length = stop - offset;
  const name = { operation: "pwrite", offset, length };
  throw requestError(
    io.node,
    "EBUSY",
    `${length} bytes at ${offset} are in use by another request`,
    name,
  );
}

function refuseUnaligned(io: NodeIo, name: RequestName, flags: number): void {
  if ((flags & RequestFlag.noFallback) === 0) return;
  const { length, offset } = name;
  const alignment = io.node.limits.requestAlignment;
  throw requestError(
    io.node,
    "ENOTSUP",
    `${length} bytes at ${offset} are not aligned to ${alignment}`,
    name,
  );
}

/** Reads the blocks that the range begins and ends in, and returns the payload with their other bytes around it. */
async function complete(io: NodeIo, range: AlignedRange, payload: Payload): Promise<Payload> {
  const alignment = io.node.limits.requestAlignment;
  const { offset, stop, start, end } = range;
  if (end - start <= 2 * alignment) {
    const blocks = new Uint8Array(end - start);
    await driverRead(io, start, blocks);
    return payload.padded(blocks.subarray(0, offset - start), blocks.subarray(stop - start));
  }
  const head = new Uint8Array(start < offset ? alignment : 0);
  const tail = new Uint8Array(stop < end ? alignment : 0);
  if (head.length > 0) await driverRead(io, start, head);
  if (tail.length > 0) await driverRead(io, end - alignment, tail);
  return payload.padded(
    head.subarray(0, offset - start),
    tail.subarray(tail.length - (end - stop)),
  );
}

/** Writes aligned bytes, as zeroes if that is what they are and the node looks for it. */
async function issueWrite(
  io: NodeIo,
  start: number,
  payload: Payload,
  flags: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { driver, options } = io.node;
  const { length } = payload;
  if (options.detectZeroes !== "off" && driver.zeroes === "native" && payload.isZero()) {
    const unmap = options.detectZeroes === "unmap" && options.discard === "unmap";
    const zeroFlags =
      (flags & ~(RequestFlag.compressed | RequestFlag.noFallback)) |
      (unmap ? RequestFlag.mayUnmap : 0);
    await change(io, "zeroes", start, length, zeroFlags, async () => {
      await driverZeroes(io, start, length, zeroFlags, signal);
      if (zeroesNeedFlush(io, zeroFlags)) await stabilise(io);
    });
    return;
  }
  await change(io, "write", start, length, flags, () =>
    driverWrite(io, start, payload, flags, signal),
  );
}

/** Zeroes whole blocks by the driver and the bytes of incomplete ones by writing them anew. */
async function zeroAligned(
  io: NodeIo,
  range: AlignedRange,
  flags: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const alignment = io.node.limits.requestAlignment;
  const { offset, stop, start, end } = range;
  const middle = alignUp(offset, alignment);
  const last = alignDown(stop, alignment);
  if (last < middle) {
    await zeroInBlock(io, start, offset, stop, flags);
    return;
  }
  if (start < offset) await zeroInBlock(io, start, offset, middle, flags);
  if (middle < last) await driverZeroes(io, middle, last - middle, flags, signal);
  if (stop < end) await zeroInBlock(io, last, last, stop, flags);
}

async function zeroInBlock(
  io: NodeIo,
  blockOffset: number,
  from: number,
  to: number,
  flags: number,
): Promise<void> {
  const block = new Uint8Array(io.node.limits.requestAlignment);
  await driverRead(io, blockOffset, block);
  block.fill(0, from - blockOffset, to - blockOffset);
  // One flush for the whole request follows where the driver does not know `fua`.
  const native = RequestFlag.writeUnchanged | (RequestFlag.fua & io.node.driver.flags.write);
  await driverWrite(io, blockOffset, new Payload([block]), flags & native);
}

/**
 * Announces a change of content, makes it, and settles what follows from it, also when it failed. The request waited
 * for its overlaps already.
 */
export async function change(
  io: NodeIo,
  kind: WriteKind & ("write" | "zeroes" | "discard"),
  offset: number,
  length: number,
  flags: number,
  work: () => Promise<void>,
): Promise<void> {
  const { node } = io;
  const end = offset + length;
  const grows = end > node.size && kind !== "discard";
  if (grows) await io.announcer.beforeResize(node.observers, node.size, end);
  await io.announcer.before(node.observers, kind, offset, length, flags);
  if (kind !== "write") io.invalidateStatusCache(offset, length);
  try {
    await work();
    if (grows) checkGrown(node, { operation: kind, offset, length });
  } catch (error) {
    // A part may have been written, and may have made it longer.
    if (grows) io.resized();
    io.changed(kind, offset, length, flags, error);
    throw error;
  }
  if (grows) io.resized();
  io.changed(kind, offset, length, flags, undefined);
}

/** A driver that takes bytes beyond its end and does not become longer has lost them. */
function checkGrown(node: BlockNode, request: RequestName): void {
  const { operation, offset, length } = request;
  const { size } = node.driver;
  if (offset + length <= size) return;
  const message = `${operation} of ${length} bytes at ${offset} did not make the node longer than ${size} bytes`;
  throw requestError(node, "EIO", message, request);
}
