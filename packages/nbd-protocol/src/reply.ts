import { readU16, readU32, writeU16, writeU32, writeU64 } from "@blocklayer/offsets";
import { NbdChunk, NbdMagic, NbdSize } from "./constants.ts";
import { NBD_LIMITS } from "./limits.ts";
import { invalidMessage, needBytes } from "./malformed.ts";
import { checkStart, checkU32, readSize, writeStart } from "./request.ts";
import { decodeMessage, encodeMessage } from "./text.ts";

/** The header of a simple reply; data of a successful READ follows it. */
export interface NbdSimpleReply {
  /** An error number of the protocol, 0 for success. */
  readonly error: number;
  readonly cookieHigh: number;
  readonly cookieLow: number;
}

/** The header of one chunk of a structured or extended reply; `length` bytes of payload follow it. */
export interface NbdChunkHeader {
  readonly flags: number;
  /** See `NbdChunk`. */
  readonly type: number;
  readonly cookieHigh: number;
  readonly cookieLow: number;
  /** Offset of the request; 0 in a structured reply, whose header has no such field. */
  readonly offset: number;
  /** Bytes of payload; `Infinity` for 2^53 or more. */
  readonly length: number;
}

/** One run of equal status. */
export interface NbdExtent {
  /** Bytes. */
  readonly length: number;
  /** The lower 32 bits. */
  readonly flags: number;
  /** The upper 32 bits, which only extended replies can carry. Default 0. */
  readonly flagsHigh?: number;
}

/** Payload of a block status chunk. */
export interface NbdStatus {
  readonly contextId: number;
  readonly extents: readonly NbdExtent[];
}

/** Payload of an error chunk. */
export interface NbdErrorChunk {
  readonly error: number;
  readonly message: string;
  /** Where it failed, bytes; `undefined` when the chunk does not tell. */
  readonly offset: number | undefined;
}

/** Writes the header of a simple reply (16 bytes) and returns the position after it. */
export function writeSimpleReply(
  into: Uint8Array,
  position: number,
  error: number,
  cookieHigh: number,
  cookieLow: number,
): number {
  writeU32(into, position, NbdMagic.SIMPLE_REPLY);
  writeU32(into, position + 4, error);
  writeU32(into, position + 8, cookieHigh);
  writeU32(into, position + 12, cookieLow);
  return position + NbdSize.SIMPLE_REPLY;
}

/** Writes the header of a structured reply chunk (20 bytes) and returns the position after it. */
export function writeStructuredReply(
  into: Uint8Array,
  position: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  length: number,
): number {
  checkU32(length, "length of a structured reply");
  writeStart(into, position, NbdMagic.STRUCTURED_REPLY, flags, type, cookieHigh, cookieLow);
  writeU32(into, position + 16, length);
  return position + NbdSize.STRUCTURED_REPLY;
}

/**
 * Writes the header of an extended reply chunk (32 bytes) and returns the position after it.
 *
 * @param offset - that of the request, bytes
 */
export function writeExtendedReply(
  into: Uint8Array,
  position: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  length: number,
): number {
  writeStart(into, position, NbdMagic.EXTENDED_REPLY, flags, type, cookieHigh, cookieLow);
  writeU64(into, position + 16, offset);
  writeU64(into, position + 24, length);
  return position + NbdSize.EXTENDED_REPLY;
}

/** Returns a simple reply of its own memory. */
export function encodeSimpleReply(
  reply: NbdSimpleReply,
  data: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const bytes = new Uint8Array(NbdSize.SIMPLE_REPLY + data.length);
  const { error, cookieHigh, cookieLow } = reply;
  bytes.set(data, writeSimpleReply(bytes, 0, error, cookieHigh, cookieLow));
  return bytes;
}

/** Returns a chunk of its own memory; its `length` is that of the payload. */
export function encodeChunk(
  header: Omit<NbdChunkHeader, "length">,
  extended: boolean,
  payload: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const { flags, type, cookieHigh, cookieLow, offset } = header;
  const { length } = payload;
  const size = extended ? NbdSize.EXTENDED_REPLY : NbdSize.STRUCTURED_REPLY;
  const bytes = new Uint8Array(size + length);
  const end = extended
    ? writeExtendedReply(bytes, 0, flags, type, cookieHigh, cookieLow, offset, length)
    : writeStructuredReply(bytes, 0, flags, type, cookieHigh, cookieLow, length);
  bytes.set(payload, end);
  return bytes;
}

/** Returns the simple reply at `position`. @throws BlockError `EPROTO` too few bytes, or another magic number */
export function decodeSimpleReply(bytes: Uint8Array, position: number = 0): NbdSimpleReply {
  checkStart(bytes, position, NbdSize.SIMPLE_REPLY, NbdMagic.SIMPLE_REPLY, "simple reply");
  return {
    error: readU32(bytes, position + 4),
    cookieHigh: readU32(bytes, position + 8),
    cookieLow: readU32(bytes, position + 12),
  };
}

/** Returns the chunk header at `position`. @throws BlockError `EPROTO` too few bytes, or another magic number */
export function decodeChunk(
  bytes: Uint8Array,
  extended: boolean,
  position: number = 0,
): NbdChunkHeader {
  const size = extended ? NbdSize.EXTENDED_REPLY : NbdSize.STRUCTURED_REPLY;
  const magic = extended ? NbdMagic.EXTENDED_REPLY : NbdMagic.STRUCTURED_REPLY;
  checkStart(bytes, position, size, magic, extended ? "extended reply" : "structured reply");
  return {
    flags: readU16(bytes, position + 4),
    type: readU16(bytes, position + 6),
    cookieHigh: readU32(bytes, position + 8),
    cookieLow: readU32(bytes, position + 12),
    offset: extended ? readSize(bytes, position + 16) : 0,
    length: extended ? readSize(bytes, position + 24) : readU32(bytes, position + 16),
  };
}

/**
 * Writes the first 8 bytes of an OFFSET_DATA payload and returns the position after them; the data follows.
 *
 * @param offset - of the data in the export, bytes
 */
export function writeOffsetData(into: Uint8Array, position: number, offset: number): number {
  writeU64(into, position, offset);
  return position + 8;
}

/** Writes an OFFSET_HOLE payload (12 bytes) and returns the position after it. */
export function writeOffsetHole(
  into: Uint8Array,
  position: number,
  offset: number,
  length: number,
): number {
  checkU32(length, "length of a hole");
  writeU64(into, position, offset);
  writeU32(into, position + 8, length);
  return position + 12;
}

/** Returns an OFFSET_DATA payload of its own memory. */
export function encodeOffsetData(offset: number, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(8 + data.length);
  bytes.set(data, writeOffsetData(bytes, 0, offset));
  return bytes;
}

/** Returns an OFFSET_HOLE payload. */
export function encodeOffsetHole(offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(12);
  writeOffsetHole(bytes, 0, offset, length);
  return bytes;
}

/** Where data or a hole of a READ lies. */
export interface NbdPiece {
  /** Bytes from the start of the export; `Infinity` for 2^53 or more. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
}

/** Returns where an OFFSET_HOLE lies. @throws BlockError `EINVAL` not 12 bytes, or an empty hole */
export function decodeOffsetHole(payload: Uint8Array): NbdPiece {
  if (payload.length !== 12) {
    throw invalidMessage(
      `hole chunk has ${payload.length} bytes, not 12`,
      "hole chunk",
      payload.length,
      12,
    );
  }
  const length = readU32(payload, 8);
  if (length === 0) throw invalidMessage("hole chunk is empty", "hole length", 0, 1);
  return { offset: readSize(payload, 0), length };
}

/** Returns where an OFFSET_DATA lies; its data begins at byte 8. @throws BlockError `EINVAL` no data */
export function decodeOffsetData(payload: Uint8Array): NbdPiece {
  needBytes(payload, 0, 9, "data chunk");
  return { offset: readSize(payload, 0), length: payload.length - 8 };
}

/**
 * Returns the payload of an ERROR chunk, or of an ERROR_OFFSET chunk when `offset` is given.
 *
 * @param error - an error number of the protocol, not 0
 * @param message - for people, cut to 4096 bytes
 */
export function encodeErrorChunk(error: number, message: string, offset?: number): Uint8Array {
  const text = encodeMessage(message);
  const bytes = new Uint8Array(6 + text.length + (offset === undefined ? 0 : 8));
  writeU32(bytes, 0, error);
  writeU16(bytes, 4, text.length);
  bytes.set(text, 6);
  if (offset !== undefined) writeU64(bytes, 6 + text.length, offset);
  return bytes;
}

/**
 * Returns the payload of an error chunk. Of an error chunk of unknown type the number and the message are read and
 * what follows is ignored.
 *
 * @throws BlockError `EINVAL` lengths that do not fit together, error number 0, or a message of over 4096 bytes
 */
export function decodeErrorChunk(type: number, payload: Uint8Array): NbdErrorChunk {
  needBytes(payload, 0, 6, "error chunk");
  const error = readU32(payload, 0);
  if (error === 0) throw invalidMessage("error chunk has error number 0", "error number", 0);
  const messageLength = readU16(payload, 4);
  if (messageLength > NBD_LIMITS.string) {
    throw invalidMessage(
      `error message of ${messageLength} bytes is longer than ${NBD_LIMITS.string}`,
      "error message",
      messageLength,
      NBD_LIMITS.string,
    );
  }
  const hasOffset = type === NbdChunk.ERROR_OFFSET;
  const wanted = 6 + messageLength + (hasOffset ? 8 : 0);
  const isKnown = hasOffset || type === NbdChunk.ERROR;
  if (isKnown ? payload.length !== wanted : payload.length < wanted) {
    throw invalidMessage(
      `error chunk has ${payload.length} bytes, not ${wanted}`,
      "error chunk",
      payload.length,
      wanted,
    );
  }
  return {
    error,
    message: decodeMessage(payload, 6, 6 + messageLength),
    offset: hasOffset ? readSize(payload, 6 + messageLength) : undefined,
  };
}

/** Returns how long the payload of a block status chunk with `count` extents is. */
export function statusLength(count: number, extended: boolean): number {
  return extended ? 8 + 16 * count : 4 + 8 * count;
}

/**
 * Writes the payload of a BLOCK_STATUS chunk, or of BLOCK_STATUS_EXT when `extended`, and returns the position
 * after it.
 *
 * @throws RangeError a length that does not fit its field, or no extent
 */
export function writeStatus(
  into: Uint8Array,
  position: number,
  status: NbdStatus,
  extended: boolean,
): number {
  const { contextId, extents } = status;
  if (extents.length === 0) throw new RangeError("a block status has at least one extent");
  writeU32(into, position, contextId);
  if (!extended) {
    let at = position + 4;
    for (const extent of extents) {
      checkU32(extent.length, "length of an extent");
      checkU32(extent.flags, "flags of an extent");
      writeU32(into, at, extent.length);
      writeU32(into, at + 4, extent.flags);
      at += 8;
    }
    return at;
  }
  writeU32(into, position + 4, extents.length);
  let at = position + 8;
  for (const extent of extents) {
    writeU64(into, at, extent.length);
    writeU32(into, at + 8, extent.flagsHigh ?? 0);
    writeU32(into, at + 12, extent.flags);
    at += 16;
  }
  return at;
}

/** Returns the payload of a block status chunk. @throws RangeError as {@link writeStatus} */
export function encodeStatus(status: NbdStatus, extended: boolean): Uint8Array {
  const bytes = new Uint8Array(statusLength(status.extents.length, extended));
  writeStatus(bytes, 0, status, extended);
  return bytes;
}

/**
 * Returns the payload of a block status chunk. The extents may reach beyond the request; clipping is for the
 * caller.
 *
 * @throws BlockError `EINVAL` a length that does not fit, no extent, too many, or one of no bytes or of 2^53 and more
 */
export function decodeStatus(
  payload: Uint8Array,
  extended: boolean,
  limit: number = NBD_LIMITS.statusExtents,
): NbdStatus {
  const count = countExtents(payload, extended);
  if (count > limit) {
    throw invalidMessage(`${count} extents are more than ${limit}`, "extent count", count, limit);
  }
  const extents: NbdExtent[] = [];
  for (let index = 0; index < count; index += 1) {
    const at = statusLength(index, extended);
    const length = extended ? readSize(payload, at) : readU32(payload, at);
    if (length === 0) throw invalidMessage(`extent ${index} is empty`, "extent length", 0, 1);
    if (length === Number.POSITIVE_INFINITY) {
      throw invalidMessage(`extent ${index} has 2^53 bytes or more`, "extent length", length);
    }
    extents.push({
      length,
      flags: readU32(payload, extended ? at + 12 : at + 4),
      flagsHigh: extended ? readU32(payload, at + 8) : 0,
    });
  }
  return { contextId: readU32(payload, 0), extents };
}

function countExtents(payload: Uint8Array, extended: boolean): number {
  const count = extended ? (payload.length - 8) / 16 : (payload.length - 4) / 8;
  if (!Number.isInteger(count) || count < 1) {
    throw invalidMessage(
      `block status chunk of ${payload.length} bytes is not made of whole extents`,
      "block status chunk",
      payload.length,
    );
  }
  if (extended && readU32(payload, 4) !== count) {
    throw invalidMessage(
      `block status chunk counts ${readU32(payload, 4)} extents and has ${count}`,
      "extent count",
      readU32(payload, 4),
      count,
    );
  }
  return count;
}
