import { BlockError } from "@blocklayer/errors";
import {
  isPowerOfTwo,
  isSafeSize,
  MAX_LENGTH,
  readU16,
  readU32,
  readU64,
  writeU16,
  writeU32,
  writeU64,
} from "@blocklayer/offsets";
import { NbdInfo, NbdMagic, NbdSize } from "./constants.ts";
import { invalidMessage, needBytes } from "./malformed.ts";
import { countedEnd, writeCounted } from "./option.ts";
import { decodeText, encodeMessage, encodeText } from "./text.ts";

/** Data of the reply SERVER: one export of a list. */
export interface NbdServerEntry {
  readonly exportName: string;
  readonly description: string;
}

/** Data of the reply META_CONTEXT. */
export interface NbdMetaContext {
  /** Names the context in block status replies; 0 in the answer to LIST_META_CONTEXT. */
  readonly id: number;
  readonly name: string;
}

/** Sizes of requests in bytes. */
export interface NbdBlockSize {
  /** Offsets and lengths are multiples of this. A power of two up to 65536. */
  readonly minimum: number;
  /** Multiples of this are fast. A power of two of at least 512 and the minimum. */
  readonly preferred: number;
  /** Longest payload; 4294967295 for no limit. */
  readonly maximum: number;
}

/** Data of the reply INFO. A client ignores what is unknown. */
export type NbdInfoReply =
  | { readonly kind: "export"; readonly size: number; readonly transmissionFlags: number }
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "description"; readonly description: string }
  | ({ readonly kind: "block-size" } & NbdBlockSize)
  | { readonly kind: "unknown"; readonly type: number; readonly payload: Uint8Array };

/** The reply to EXPORT_NAME, which has no header. */
export interface NbdExportNameReply {
  /** Bytes. */
  readonly size: number;
  readonly transmissionFlags: number;
}

/** Writes the header of an option reply and returns the position after it; the data follows. */
export function writeOptionReplyHeader(
  into: Uint8Array,
  position: number,
  option: number,
  type: number,
  length: number,
): number {
  writeU32(into, position, NbdMagic.OPTION_REPLY_HIGH);
  writeU32(into, position + 4, NbdMagic.OPTION_REPLY_LOW);
  writeU32(into, position + 8, option);
  writeU32(into, position + 12, type);
  writeU32(into, position + 16, length);
  return position + NbdSize.OPTION_REPLY_HEADER;
}

/** Returns an option reply. */
export function encodeOptionReply(
  option: number,
  type: number,
  payload: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const bytes = new Uint8Array(NbdSize.OPTION_REPLY_HEADER + payload.length);
  bytes.set(payload, writeOptionReplyHeader(bytes, 0, option, type, payload.length));
  return bytes;
}

/** Returns an option reply with an error and a message for people, cut to 4096 bytes. */
export function encodeOptionError(option: number, type: number, message: string): Uint8Array {
  return encodeOptionReply(option, type, encodeMessage(message));
}

/** Returns the data of the reply SERVER. @throws BlockError `EINVAL` as every name */
export function encodeServerEntry(entry: NbdServerEntry): Uint8Array {
  const name = encodeText(entry.exportName, "export name");
  const description = encodeText(entry.description, "description");
  const bytes = new Uint8Array(4 + name.length + description.length);
  bytes.set(description, writeCounted(bytes, 0, name));
  return bytes;
}

/** Returns one export of a list. @throws BlockError `EINVAL` lengths that do not fit, or a bad name */
export function decodeServerEntry(payload: Uint8Array): NbdServerEntry {
  const end = countedEnd(payload, 0, "export name");
  return {
    exportName: decodeText(payload, 4, end, "export name"),
    description: decodeText(payload, end, payload.length, "description"),
  };
}

/** Returns the data of the reply META_CONTEXT. @throws BlockError `EINVAL` as every name */
export function encodeMetaContext(context: NbdMetaContext): Uint8Array {
  const name = encodeText(context.name, "context name");
  const bytes = new Uint8Array(4 + name.length);
  writeU32(bytes, 0, context.id);
  bytes.set(name, 4);
  return bytes;
}

/** Returns a selected or listed context. @throws BlockError `EINVAL` too short, or a bad name */
export function decodeMetaContext(payload: Uint8Array): NbdMetaContext {
  needBytes(payload, 0, 4, "context id");
  return {
    id: readU32(payload, 0),
    name: decodeText(payload, 4, payload.length, "context name"),
  };
}

/** Returns the data of the reply INFO. @throws BlockError `EINVAL` as every name */
export function encodeInfo(info: NbdInfoReply): Uint8Array {
  switch (info.kind) {
    case "export": {
      const bytes = infoBytes(NbdInfo.EXPORT, 10);
      writeU64(bytes, 2, info.size);
      writeU16(bytes, 10, info.transmissionFlags);
      return bytes;
    }
    case "name":
      return infoBytes(NbdInfo.NAME, encodeText(info.name, "export name"));
    case "description":
      return infoBytes(NbdInfo.DESCRIPTION, encodeText(info.description, "description"));
    case "block-size": {
      checkBlockSize(info);
      const bytes = infoBytes(NbdInfo.BLOCK_SIZE, 12);
      writeU32(bytes, 2, info.minimum);
      writeU32(bytes, 6, info.preferred);
      writeU32(bytes, 10, info.maximum);
      return bytes;
    }
    case "unknown":
      return infoBytes(info.type, info.payload);
  }
}

function infoBytes(type: number, payload: Uint8Array | number): Uint8Array {
  const bytes = new Uint8Array(2 + (typeof payload === "number" ? payload : payload.length));
  writeU16(bytes, 0, type);
  if (typeof payload !== "number") bytes.set(payload, 2);
  return bytes;
}

/**
 * Returns one piece of information about an export.
 *
 * @throws BlockError `EINVAL` a length or block size that breaks the protocol's rules; `EFBIG` an export of 2^53
 *   bytes or more
 */
export function decodeInfo(payload: Uint8Array): NbdInfoReply {
  needBytes(payload, 0, 2, "information type");
  const type = readU16(payload, 0);
  switch (type) {
    case NbdInfo.EXPORT:
      needExactly(payload, 12, "export information");
      return {
        kind: "export",
        size: checkExportSize(readU64(payload, 2)),
        transmissionFlags: readU16(payload, 10),
      };
    case NbdInfo.NAME:
      return { kind: "name", name: decodeText(payload, 2, payload.length, "export name") };
    case NbdInfo.DESCRIPTION:
      return {
        kind: "description",
        description: decodeText(payload, 2, payload.length, "description"),
      };
    case NbdInfo.BLOCK_SIZE: {
      needExactly(payload, 14, "block size information");
      const size = {
        minimum: readU32(payload, 2),
        preferred: readU32(payload, 6),
        maximum: readU32(payload, 10),
      };
      checkBlockSize(size);
      return { kind: "block-size", ...size };
    }
    default:
      return { kind: "unknown", type, payload: payload.subarray(2) };
  }
}

/** Returns the reply to EXPORT_NAME. @param noZeroes - both sides set NO_ZEROES */
export function encodeExportNameReply(reply: NbdExportNameReply, noZeroes: boolean): Uint8Array {
  const bytes = new Uint8Array(
    NbdSize.EXPORT_NAME_REPLY + (noZeroes ? 0 : NbdSize.EXPORT_NAME_ZEROES),
  );
  writeU64(bytes, 0, reply.size);
  writeU16(bytes, 8, reply.transmissionFlags);
  return bytes;
}

/**
 * Returns the reply to EXPORT_NAME; what follows the flags is not looked at.
 *
 * @throws BlockError `EINVAL` too short; `EFBIG` an export of 2^53 bytes or more
 */
export function decodeExportNameReply(bytes: Uint8Array, position: number = 0): NbdExportNameReply {
  needBytes(bytes, position, NbdSize.EXPORT_NAME_REPLY, "export name reply");
  return {
    size: checkExportSize(readU64(bytes, position)),
    transmissionFlags: readU16(bytes, position + 8),
  };
}

/** Returns the size of an export if it can be counted exactly. */
export function checkExportSize(size: number): number {
  if (isSafeSize(size)) return size;
  throw new BlockError("EFBIG", `export of ${size} bytes is larger than ${MAX_LENGTH}`, {
    operation: "nbd",
    field: "export size",
    value: size,
    limit: MAX_LENGTH,
  });
}

const NO_MAXIMUM = 0xffffffff;

/** Checks the rules of spec/nbd.md section 7. */
function checkBlockSize({ minimum, preferred, maximum }: NbdBlockSize): void {
  if (!isPowerOfTwo(minimum) || minimum > 65536) {
    throw invalidMessage(
      `minimum block size ${minimum} is not a power of two up to 65536`,
      "minimum block size",
      minimum,
      65536,
    );
  }
  const floor = Math.max(512, minimum);
  if (!isPowerOfTwo(preferred) || preferred < floor) {
    throw invalidMessage(
      `preferred block size ${preferred} is not a power of two of at least ${floor}`,
      "preferred block size",
      preferred,
      floor,
    );
  }
  if (maximum !== NO_MAXIMUM && maximum < preferred) {
    throw invalidMessage(
      `maximum block size ${maximum} is below the preferred ${preferred}`,
      "maximum block size",
      maximum,
      preferred,
    );
  }
}

function needExactly(payload: Uint8Array, length: number, field: string): void {
  if (payload.length === length) return;
  throw invalidMessage(
    `${field} has ${payload.length} bytes, not ${length}`,
    field,
    payload.length,
    length,
  );
}
