import { RequestFlag, type RequestOptions } from "@blocklayer/driver";
import { alignDown, alignUp } from "@blocklayer/offsets";
import { clusterSizeOf, copyOnRead } from "./copy-on-read.ts";
import { driverOptions, driverReadUnaligned } from "./driver-transfer.ts";
import type { NodeIo } from "./node-io.ts";
import { checkTransfer } from "./request-checks.ts";
import { isAllocated } from "./status-queries.ts";

/**
 * Reads any range: the general form of what `NodeIo.pread` does fast. The caller counts it as in flight.
 *
 * @see spec/graph.md section 7.5
 */
export async function readRange(
  io: NodeIo,
  offset: number,
  buffer: Uint8Array,
  options: RequestOptions | undefined,
): Promise<void> {
  const { length } = buffer;
  checkTransfer(io.node, { operation: "pread", offset, length });
  if (length === 0) return;
  options?.signal?.throwIfAborted();
  const flags = io.readFlags(options?.flags ?? 0);
  if ((flags & RequestFlag.copyOnRead) !== 0) {
    await readWithCopy(io, offset, buffer, flags, options?.signal);
    return;
  }
  const { driver, limits } = io.node;
  // A hint that the driver does not know is a hint that nobody follows.
  if ((flags & RequestFlag.prefetch & ~driver.flags.read) !== 0) return;
  const start = alignDown(offset, limits.requestAlignment);
  const end = alignUp(offset + length, limits.requestAlignment);
  const request = io.tracker.begin("read", start, end - start);
  try {
    await io.tracker.waitForConflicts(request, options?.signal);
    const forDriver = driverOptions(flags & driver.flags.read, options?.signal);
    await driverReadUnaligned(io, offset, buffer, forDriver);
  } finally {
    io.tracker.end(request);
  }
}

async function readWithCopy(
  io: NodeIo,
  offset: number,
  buffer: Uint8Array,
  flags: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const clusterSize = await clusterSizeOf(io);
  const unwound = io.unwindStack();
  if (unwound !== undefined) await unwound;
  const alignment = io.node.limits.requestAlignment;
  const start = alignDown(offset, alignment);
  const end = alignUp(offset + buffer.length, alignment);
  const request = io.tracker.begin("read", start, end - start);
  const skipsData = (flags & RequestFlag.prefetch) !== 0;
  try {
    io.tracker.serialise(request, clusterSize);
    await io.tracker.waitForConflicts(request, signal);
    if (await isWhollyAllocated(io, offset, buffer.length)) {
      if (!skipsData) await driverReadUnaligned(io, offset, buffer);
      return;
    }
    await copyOnRead(io, offset, buffer, { clusterSize, skipsData });
  } finally {
    io.tracker.end(request);
  }
}

async function isWhollyAllocated(io: NodeIo, offset: number, length: number): Promise<boolean> {
  const { size } = io.node;
  const end = Math.min(offset + length, size);
  let position = offset;
  while (position < end) {
    const run = await isAllocated(io.node, position, end - position);
    if (!run.allocated || run.length === 0) return false;
    position += run.length;
  }
  return true;
}
