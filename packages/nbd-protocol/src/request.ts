import { readU16, readU32, readU64, writeU16, writeU32, writeU64 } from "@blocklayer/offsets";
import { NbdErrno, NbdMagic, NbdSize } from "./constants.ts";
import { NBD_LIMITS } from "./limits.ts";
import { hex32, invalidMessage, protocolError } from "./malformed.ts";

/** The header of a request. 64-bit cookies are two halves of 32 bits. */
export interface NbdRequestHeader {
  readonly flags: number;
  /** See `NbdCommand`. */
  readonly type: number;
  readonly cookieHigh: number;
  readonly cookieLow: number;
  /** Bytes; `Infinity` for 2^53 or more, which is beyond the end of every export. */
  readonly offset: number;
  /** Bytes of effect, or of payload with the flag PAYLOAD_LEN; `Infinity` for 2^53 or more. */
  readonly length: number;
}

/**
 * Writes the header of a compact request (28 bytes) and returns the position after it; the payload of a WRITE
 * follows.
 *
 * @param length - bytes, below 2^32
 * @throws RangeError an offset or length that does not fit its field
 */
export function writeRequest(
  into: Uint8Array,
  position: number,
  type: number,
  flags: number,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  length: number,
): number {
  checkU32(length, "length of a compact request");
  writeStart(into, position, NbdMagic.REQUEST, flags, type, cookieHigh, cookieLow);
  writeU64(into, position + 16, offset);
  writeU32(into, position + 24, length);
  return position + NbdSize.REQUEST;
}

/**
 * Writes the header of an extended request (32 bytes) and returns the position after it; a payload follows if
 * `flags` contain PAYLOAD_LEN.
 *
 * @param length - bytes
 * @throws RangeError an offset or length that is not a safe integer
 */
export function writeExtendedRequest(
  into: Uint8Array,
  position: number,
  type: number,
  flags: number,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  length: number,
): number {
  writeStart(into, position, NbdMagic.EXTENDED_REQUEST, flags, type, cookieHigh, cookieLow);
  writeU64(into, position + 16, offset);
  writeU64(into, position + 24, length);
  return position + NbdSize.EXTENDED_REQUEST;
}

/** Returns a request of its own memory, compact or extended. @throws RangeError as the writers */
export function encodeRequest(
  header: NbdRequestHeader,
  extended: boolean,
  payload: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const { type, flags, cookieHigh, cookieLow, offset, length } = header;
  const size = extended ? NbdSize.EXTENDED_REQUEST : NbdSize.REQUEST;
  const bytes = new Uint8Array(size + payload.length);
  const write = extended ? writeExtendedRequest : writeRequest;
  bytes.set(payload, write(bytes, 0, type, flags, cookieHigh, cookieLow, offset, length));
  return bytes;
}

/**
 * Returns the header at `position`. `RequestReader` is the fast way to read many.
 *
 * @throws BlockError `EPROTO` too few bytes, or another magic number
 */
export function decodeRequest(
  bytes: Uint8Array,
  extended: boolean,
  position: number = 0,
): NbdRequestHeader {
  const size = extended ? NbdSize.EXTENDED_REQUEST : NbdSize.REQUEST;
  checkStart(
    bytes,
    position,
    size,
    extended ? NbdMagic.EXTENDED_REQUEST : NbdMagic.REQUEST,
    "request",
  );
  return {
    flags: readU16(bytes, position + 4),
    type: readU16(bytes, position + 6),
    cookieHigh: readU32(bytes, position + 8),
    cookieLow: readU32(bytes, position + 12),
    offset: readSize(bytes, position + 16),
    length: extended ? readSize(bytes, position + 24) : readU32(bytes, position + 24),
  };
}

/** Payload of a BLOCK_STATUS request with the flag PAYLOAD_LEN. */
export interface NbdStatusFilter {
  /** Bytes of effect; `Infinity` for 2^53 or more. */
  readonly effectLength: number;
  /** Only these contexts are to be answered. */
  readonly contextIds: readonly number[];
}

/** Returns the payload of a BLOCK_STATUS request. @throws RangeError the length is not a safe integer */
export function encodeStatusFilter(filter: NbdStatusFilter): Uint8Array {
  const bytes = new Uint8Array(8 + 4 * filter.contextIds.length);
  writeU64(bytes, 0, filter.effectLength);
  for (const [index, id] of filter.contextIds.entries()) writeU32(bytes, 8 + 4 * index, id);
  return bytes;
}

/**
 * Returns the payload of a BLOCK_STATUS request. Whether the contexts were selected is for the server to check.
 *
 * @throws BlockError `EINVAL` a length that does not fit, too many contexts, or one of them twice
 * @see spec/nbd.md section 3
 */
export function decodeStatusFilter(
  payload: Uint8Array,
  limit: number = NBD_LIMITS.queries,
): NbdStatusFilter {
  const count = (payload.length - 8) / 4;
  if (!Number.isInteger(count) || count < 0) {
    throw invalidMessage(
      `block status payload of ${payload.length} bytes is not 8 and a multiple of 4`,
      "block status payload",
      payload.length,
      8,
    );
  }
  if (count > limit) {
    throw invalidMessage(`${count} contexts are more than ${limit}`, "context count", count, limit);
  }
  const contextIds: number[] = [];
  for (let index = 0; index < count; index += 1) {
    const id = readU32(payload, 8 + 4 * index);
    if (contextIds.includes(id)) {
      throw invalidMessage(`context ${id} is named twice`, "context id", id);
    }
    contextIds.push(id);
  }
  return { effectLength: readSize(payload, 0), contextIds };
}

/** Returns the 64-bit field at `position`, `Infinity` if it is 2^53 or more: never a rounded number. */
export function readSize(bytes: Uint8Array, position: number): number {
  const size = readU64(bytes, position);
  return size < 2 ** 53 ? size : Number.POSITIVE_INFINITY;
}

/** Returns the error to answer a request with whose offset is 2^53 or more. */
export function errorBeyondEnd(isWrite: boolean): number {
  return isWrite ? NbdErrno.ENOSPC : NbdErrno.EINVAL;
}

/** Checks that a frame is there and begins with its magic number. */
export function checkStart(
  bytes: Uint8Array,
  position: number,
  size: number,
  magic: number,
  field: string,
): void {
  if (bytes.length - position < size) {
    const have = Math.max(0, bytes.length - position);
    throw protocolError(`${field} needs ${size} bytes, ${have} are there`, field, have, size);
  }
  const got = readU32(bytes, position);
  if (got !== magic) throw wrongMagic(got, magic, field);
}

/** Returns the error for a frame that begins with another number. */
export function wrongMagic(got: number, magic: number, field: string): Error {
  return protocolError(
    `${field} magic is ${hex32(got)}, not ${hex32(magic)}`,
    `${field} magic`,
    hex32(got),
    hex32(magic),
  );
}

/** Writes the first 16 bytes that requests and chunks have in common. */
export function writeStart(
  into: Uint8Array,
  position: number,
  magic: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
): void {
  writeU32(into, position, magic);
  writeU16(into, position + 4, flags);
  writeU16(into, position + 6, type);
  writeU32(into, position + 8, cookieHigh);
  writeU32(into, position + 12, cookieLow);
}

/** Checks that a number fits a field of 32 bits. */
export function checkU32(value: number, field: string): void {
  if (value >= 0 && value < 2 ** 32 && Number.isInteger(value)) return;
  throw new RangeError(`${field} ${value} does not fit 32 bits`);
}
