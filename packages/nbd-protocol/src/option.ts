import { readU16, readU32, writeU16, writeU32 } from "@blocklayer/offsets";
import { NbdMagic, NbdSize } from "./constants.ts";
import { NBD_LIMITS } from "./limits.ts";
import { invalidMessage, needBytes } from "./malformed.ts";
import { decodeText, encodeText } from "./text.ts";

/** Data of the options INFO and GO. */
export interface NbdInfoRequest {
  readonly exportName: string;
  /** What the client asks for, see `NbdInfo`. */
  readonly infos: readonly number[];
}

/** Data of the options LIST_META_CONTEXT and SET_META_CONTEXT. */
export interface NbdMetaContextRequest {
  readonly exportName: string;
  readonly queries: readonly string[];
}

/** Writes the header of an option request and returns the position after it; the data follows. */
export function writeOptionHeader(
  into: Uint8Array,
  position: number,
  option: number,
  length: number,
): number {
  writeU32(into, position, NbdMagic.OPTION_HIGH);
  writeU32(into, position + 4, NbdMagic.OPTION_LOW);
  writeU32(into, position + 8, option);
  writeU32(into, position + 12, length);
  return position + NbdSize.OPTION_HEADER;
}

/** Returns an option request. */
export function encodeOption(option: number, payload: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(NbdSize.OPTION_HEADER + payload.length);
  bytes.set(payload, writeOptionHeader(bytes, 0, option, payload.length));
  return bytes;
}

/** Returns the data of the option EXPORT_NAME. @throws BlockError `EINVAL` as every name */
export function encodeExportName(exportName: string): Uint8Array {
  return encodeText(exportName, "export name");
}

/** Returns the name in the data of the option EXPORT_NAME. @throws BlockError `EINVAL` as every name */
export function decodeExportName(payload: Uint8Array): string {
  return decodeText(payload, 0, payload.length, "export name");
}

/** Returns the data of the options INFO and GO. @throws BlockError `EINVAL` as every name */
export function encodeInfoRequest(request: NbdInfoRequest): Uint8Array {
  const name = encodeExportName(request.exportName);
  const bytes = new Uint8Array(6 + name.length + 2 * request.infos.length);
  let position = writeCounted(bytes, 0, name);
  writeU16(bytes, position, request.infos.length);
  for (const info of request.infos) {
    position += 2;
    writeU16(bytes, position, info);
  }
  return bytes;
}

/**
 * Returns what the options INFO and GO ask for.
 *
 * @throws BlockError `EINVAL` lengths that do not fit together, or a bad name
 */
export function decodeInfoRequest(payload: Uint8Array): NbdInfoRequest {
  const nameEnd = countedEnd(payload, 0, "export name");
  const exportName = decodeText(payload, 4, nameEnd, "export name");
  needBytes(payload, nameEnd, 2, "information count");
  const count = readU16(payload, nameEnd);
  if (payload.length !== nameEnd + 2 + 2 * count) {
    throw invalidMessage(
      `${count} information requests need ${2 * count} bytes, ${payload.length - nameEnd - 2} are there`,
      "information count",
      count,
      payload.length - nameEnd - 2,
    );
  }
  const infos: number[] = [];
  for (let index = 0; index < count; index += 1) {
    infos.push(readU16(payload, nameEnd + 2 + 2 * index));
  }
  return { exportName, infos };
}

/**
 * Returns the data of the options LIST_META_CONTEXT and SET_META_CONTEXT.
 *
 * @throws BlockError `EINVAL` as every name
 */
export function encodeMetaContextRequest(request: NbdMetaContextRequest): Uint8Array {
  const name = encodeExportName(request.exportName);
  const queries = request.queries.map((query) => encodeText(query, "query"));
  const length = queries.reduce((sum, query) => sum + 4 + query.length, 8 + name.length);
  const bytes = new Uint8Array(length);
  let position = writeCounted(bytes, 0, name);
  writeU32(bytes, position, queries.length);
  position += 4;
  for (const query of queries) position = writeCounted(bytes, position, query);
  return bytes;
}

/**
 * Returns what the options LIST_META_CONTEXT and SET_META_CONTEXT ask for.
 *
 * @param limit - queries
 * @throws BlockError `EINVAL` lengths that do not fit together, too many queries, or a bad name
 */
export function decodeMetaContextRequest(
  payload: Uint8Array,
  limit: number = NBD_LIMITS.queries,
): NbdMetaContextRequest {
  let position = countedEnd(payload, 0, "export name");
  const exportName = decodeText(payload, 4, position, "export name");
  needBytes(payload, position, 4, "query count");
  const count = readU32(payload, position);
  position += 4;
  if (count > limit) {
    throw invalidMessage(`${count} queries are more than ${limit}`, "query count", count, limit);
  }
  const queries: string[] = [];
  for (let index = 0; index < count; index += 1) {
    const end = countedEnd(payload, position, "query");
    queries.push(decodeText(payload, position + 4, end, "query"));
    position = end;
  }
  if (position !== payload.length) {
    throw invalidMessage(
      `${payload.length - position} bytes follow the last query`,
      "queries",
      payload.length,
      position,
    );
  }
  return { exportName, queries };
}

/** Writes a 32-bit length and the bytes; returns the position after them. */
export function writeCounted(into: Uint8Array, position: number, bytes: Uint8Array): number {
  writeU32(into, position, bytes.length);
  into.set(bytes, position + 4);
  return position + 4 + bytes.length;
}

/** Returns where the counted bytes at `position` end, which is inside of `bytes`. */
export function countedEnd(bytes: Uint8Array, position: number, field: string): number {
  needBytes(bytes, position, 4, `length of ${field}`);
  const length = readU32(bytes, position);
  needBytes(bytes, position + 4, length, field);
  return position + 4 + length;
}
