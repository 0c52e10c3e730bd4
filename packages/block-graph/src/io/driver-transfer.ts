import {
  type BlockLimits,
  MAX_REQUEST,
  RequestFlag,
  type RequestOptions,
} from "@blocklayer/driver";
import { alignDown, alignUp } from "@blocklayer/offsets";
import { flushNode } from "./flush-path.ts";
import type { NodeIo } from "./node-io.ts";
import { BOUNCE_LENGTH, GATHER_LENGTH, Payload } from "./payload.ts";
import { isNotSupported, notSupported, type RequestName } from "./request-checks.ts";

/*
 * What is below tracking, checks and observers: aligned requests of any length become requests that the driver
 * accepts. Used by the paths of reads, writes and zeroes, by read-modify-write and by copy-on-read.
 */

/** Returns the longest read or write that the driver takes, a multiple of its alignment. */
export function transferMax(limits: BlockLimits): number {
  const { maxTransfer, requestAlignment } = limits;
  return alignDown(maxTransfer === 0 ? MAX_REQUEST : maxTransfer, requestAlignment);
}

/** Returns the largest bounce buffer for a node, a multiple of its alignment. */
export function bounceMax(limits: BlockLimits): number {
  const { requestAlignment } = limits;
  const bounce = Math.max(alignDown(BOUNCE_LENGTH, requestAlignment), requestAlignment);
  return Math.min(transferMax(limits), bounce);
}

/** Reads an aligned range. What lies beyond the end of the node reads as zeroes without asking the driver. */
export async function driverRead(
  io: NodeIo,
  offset: number,
  buffer: Uint8Array,
  options?: RequestOptions,
): Promise<void> {
  const { driver, limits, size } = io.node;
  const end = alignUp(size, limits.requestAlignment);
  const inside = Math.min(buffer.length, Math.max(0, end - offset));
  const pieceMax = transferMax(limits);
  for (let position = 0; position < inside; position += pieceMax) {
    const piece = buffer.subarray(position, Math.min(position + pieceMax, inside));
    await driver.pread(offset + position, piece, options);
  }
  if (inside < buffer.length) buffer.fill(0, inside);
}

/** Reads any range of the node, aligned or not, through a bounce buffer where it must. */
export async function driverReadUnaligned(
  io: NodeIo,
  offset: number,
  buffer: Uint8Array,
  options?: RequestOptions,
): Promise<void> {
  const alignment = io.node.limits.requestAlignment;
  const start = alignDown(offset, alignment);
  const stop = offset + buffer.length;
  const end = alignUp(stop, alignment);
  if (start === offset && end === stop) return driverRead(io, offset, buffer, options);
  if (end - start <= Math.max(GATHER_LENGTH, 2 * alignment)) {
    const bounce = new Uint8Array(end - start);
    await driverRead(io, start, bounce, options);
    buffer.set(bounce.subarray(offset - start, stop - start));
    return;
  }
  // Only the first and the last block are copied.
  const middle = alignUp(offset, alignment);
  const last = alignDown(stop, alignment);
  if (start < offset)
    await driverReadUnaligned(io, offset, buffer.subarray(0, middle - offset), options);
  await driverRead(io, middle, buffer.subarray(middle - offset, last - offset), options);
  if (last < stop) await driverReadUnaligned(io, last, buffer.subarray(last - offset), options);
}

/**
 * Writes an aligned range, then makes it stable if that was asked for and the driver does not do it itself.
 *
 * @param flags - {@link RequestFlag} bits; those that the driver does not know are emulated or left out
 */
export async function driverWrite(
  io: NodeIo,
  offset: number,
  payload: Payload,
  flags: number,
  signal?: AbortSignal,
): Promise<void> {
  const { driver } = io.node;
  const options = driverOptions(flags & driver.flags.write, signal);
  await writePieces(io, offset, payload, options);
  if ((flags & ~driver.flags.write & RequestFlag.fua) !== 0) await stabilise(io);
}

/** Makes what was written stable: the emulation of `fua`. */
export async function stabilise(io: NodeIo): Promise<void> {
  // The write has to count before the flush starts, or the flush would find nothing to do.
  io.writeGeneration += 1;
  await flushNode(io);
}

async function writePieces(
  io: NodeIo,
  offset: number,
  payload: Payload,
  options: RequestOptions | undefined,
): Promise<void> {
  const { node } = io;
  const { driver, limits } = node;
  const lengthMax = transferMax(limits);
  if (driver.pwritev !== undefined && payload.buffers.length > 1 && payload.length <= lengthMax) {
    return driver.pwritev(offset, payload.buffers, options);
  }
  if (driver.pwrite === undefined) {
    throw notSupported(node, { operation: "pwrite", offset, length: payload.length }, "writes");
  }
  let position = 0;
  while (position < payload.length) {
    const length = payload.pieceLength(position, offset, lengthMax, limits.requestAlignment);
    await driver.pwrite(offset + position, payload.piece(position, length), options);
    position += length;
  }
}

/** A range to be zeroed. */
interface ZeroRange {
  readonly offset: number;
  readonly length: number;
  readonly flags: number;
}

/**
 * Zeroes an aligned range: by the driver in pieces that it accepts, else by writing zero bytes.
 *
 * `fua` is passed on where the driver knows it; emulating it is the caller's, once for the whole request.
 *
 * @throws BlockError `ENOTSUP` the driver cannot, and `noFallback` was asked for
 * @see spec/graph.md section 7.7
 */
export async function driverZeroes(
  io: NodeIo,
  offset: number,
  length: number,
  flags: number,
  signal?: AbortSignal,
): Promise<void> {
  const { driver, limits } = io.node;
  const request: RequestName = { operation: "pwriteZeroes", offset, length };
  const isNative = driver.zeroes === "native" && driver.pwriteZeroes !== undefined;
  if ((flags & RequestFlag.noFallback) !== 0) {
    // A driver that does not know the flag might itself fall back, further down.
    if (!isNative || (driver.flags.zeroes & RequestFlag.noFallback) === 0) {
      throw notSupported(io.node, request, "writing zeroes without fallback");
    }
  }
  const end = offset + length;
  let position = offset;
  while (position < end) {
    const piece = {
      offset: position,
      length: zeroPieceLength(limits, position, end, isNative),
      flags,
    };
    if (!isNative || !(await tryZeroes(io, piece, signal))) await writeZeroBytes(io, piece, signal);
    position += piece.length;
  }
}

function zeroPieceLength(
  limits: BlockLimits,
  position: number,
  end: number,
  isNative: boolean,
): number {
  const { requestAlignment, pwriteZeroesAlignment, maxPwriteZeroes } = limits;
  if (!isNative) return Math.min(end - position, bounceMax(limits));
  const alignment = Math.max(pwriteZeroesAlignment, requestAlignment);
  const boundary = alignUp(position, alignment);
  const lengthMax = unitMax(maxPwriteZeroes, alignment, requestAlignment);
  // Bytes before the first boundary, and after the last one, go by themselves.
  if (boundary > position)
    return Math.min(boundary - position, end - position, transferMax(limits), lengthMax);
  const whole = alignDown(end - position, alignment);
  return Math.min(whole === 0 ? end - position : whole, lengthMax);
}

/**
 * Returns the longest piece for a limit that a driver sets: whole units of its preferred alignment if at least one
 * fits, else whole blocks.
 *
 * @param limit - bytes, 0 for none
 */
export function unitMax(limit: number, alignment: number, requestAlignment: number): number {
  if (limit === 0) return Number.POSITIVE_INFINITY;
  const unit = limit >= alignment ? alignment : requestAlignment;
  return Math.max(alignDown(limit, unit), requestAlignment);
}

/** @returns `false` when the driver cannot zero this piece and zero bytes may be written instead */
async function tryZeroes(
  io: NodeIo,
  { offset, length, flags }: ZeroRange,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const { driver } = io.node;
  try {
    await driver.pwriteZeroes?.(offset, length, driverOptions(flags & driver.flags.zeroes, signal));
    return true;
  } catch (error) {
    if (!isNotSupported(error) || (flags & RequestFlag.noFallback) !== 0) throw error;
    return false;
  }
}

/** Writes zero bytes over a piece. */
async function writeZeroBytes(
  io: NodeIo,
  { offset, length, flags }: ZeroRange,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { driver, limits } = io.node;
  const zeroes = new Uint8Array(Math.min(length, bounceMax(limits)));
  // Of the flags of a write, zero bytes know only these.
  const known = RequestFlag.fua | RequestFlag.writeUnchanged;
  const options = driverOptions(flags & driver.flags.write & known, signal);
  for (let position = 0; position < length; position += zeroes.length) {
    const piece = zeroes.subarray(0, Math.min(zeroes.length, length - position));
    await writePieces(io, offset + position, new Payload([piece]), options);
  }
}

/** Whether `fua` of a write-zeroes has to be emulated: the driver lacks it for zeroes or for zero bytes. */
export function zeroesNeedFlush(io: NodeIo, flags: number): boolean {
  const { driver } = io.node;
  return (flags & RequestFlag.fua & ~(driver.flags.zeroes & driver.flags.write)) !== 0;
}

/** Returns the options for a driver, `undefined` when they say nothing. */
export function driverOptions(
  flags: number,
  signal: AbortSignal | undefined,
): RequestOptions | undefined {
  if (signal !== undefined) return { flags, signal };
  return flags === 0 ? undefined : { flags };
}
