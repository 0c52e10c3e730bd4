import { BlockError } from "@blocklayer/errors";
import { alignUp, isAligned, readU32, readU64, writeU32, writeU64 } from "@blocklayer/offsets";
import { Autoclear, BITMAP_DIRECTORY_BYTES_MAX, BITMAPS_MAX } from "./constants.ts";
import { decodeFeatureNames, type FeatureName } from "./feature-names.ts";
import type { Header } from "./header.ts";

/** Types of header extensions that have a meaning here. */
export const Extension = {
  end: 0x00000000,
  backingFormat: 0xe2792aca,
  featureNames: 0x6803f857,
  bitmaps: 0x23852875,
  crypto: 0x0537be77,
  dataFile: 0x44415441,
} as const;

/** Bytes of type and length. */
const PREFIX = 8;
const BITMAPS_BYTES = 24;
const CRYPTO_BYTES = 16;
/** Bytes of the longest name of a backing format, its end included. */
const FORMAT_NAME_MAX = 16;
const PADDING = 8;

/** Where the directory of the persistent bitmaps is. Bytes. */
export interface BitmapsExtension {
  readonly count: number;
  readonly directoryOffset: number;
  readonly directorySize: number;
}

/** Where the encryption header is. Bytes. */
export interface CryptoExtension {
  readonly offset: number;
  readonly length: number;
}

export interface UnknownExtension {
  readonly type: number;
  readonly data: Uint8Array;
}

/** What stands between the header and the backing file's name. */
export interface HeaderExtensions {
  readonly backingFormat: string | undefined;
  readonly dataFile: string | undefined;
  readonly crypto: CryptoExtension | undefined;
  /** As it is stored, whether or not the autoclear bit says that it counts; zeroes if it does not and cannot. */
  readonly bitmaps: BitmapsExtension | undefined;
  readonly featureNames: readonly FeatureName[];
  /** Kept as they are, in order. */
  readonly unknown: readonly UnknownExtension[];
}

export const NO_EXTENSIONS: HeaderExtensions = {
  backingFormat: undefined,
  dataFile: undefined,
  crypto: undefined,
  bitmaps: undefined,
  featureNames: [],
  unknown: [],
};

/** An extension that is there, and cannot be. */
const NO_BITMAPS: BitmapsExtension = { count: 0, directoryOffset: 0, directorySize: 0 };

type Draft = {
  -readonly [Member in keyof HeaderExtensions]: HeaderExtensions[Member];
} & { unknown: UnknownExtension[] };

/**
 * Decodes the header extensions.
 *
 * @param bytes - cluster 0, as far as the file has it; zeroes are assumed behind its end
 * @throws BlockError `EINVAL` one is too long, or not what its type says
 * @see spec/qcow2.md section 2
 */
export function decodeExtensions(
  bytes: Uint8Array,
  header: Header,
  clusterSize: number,
): HeaderExtensions {
  const end = header.backingNameOffset === 0 ? clusterSize : header.backingNameOffset;
  const draft: Draft = { ...NO_EXTENSIONS, unknown: [] };
  let at = header.headerLength;
  while (at + PREFIX <= Math.min(end, bytes.length)) {
    const type = readU32(bytes, at);
    const length = readU32(bytes, at + 4);
    at += PREFIX;
    if (type === Extension.end) break;
    if (length > end - at) throw invalid("Header extension too large", { type, length });
    const data = new Uint8Array(length);
    data.set(bytes.subarray(at, at + length));
    take(draft, type, data, header, clusterSize);
    at += alignUp(length, PADDING);
  }
  return draft;
}

function take(
  draft: Draft,
  type: number,
  data: Uint8Array,
  header: Header,
  clusterSize: number,
): void {
  switch (type) {
    case Extension.backingFormat:
      if (data.length >= FORMAT_NAME_MAX) {
        const text = `ERROR: ext_backing_format: len=${data.length} too large (>=${FORMAT_NAME_MAX})`;
        throw invalid(text, { length: data.length, limit: FORMAT_NAME_MAX - 1 });
      }
      draft.backingFormat = decodeText(data);
      break;
    case Extension.dataFile:
      draft.dataFile = decodeText(data);
      break;
    case Extension.featureNames:
      draft.featureNames = decodeFeatureNames(data);
      break;
    case Extension.bitmaps:
      draft.bitmaps = decodeBitmaps(data, header, clusterSize);
      break;
    case Extension.crypto:
      draft.crypto = decodeCrypto(data, header, clusterSize);
      break;
    default:
      draft.unknown.push({ type, data });
  }
}

/** Without the autoclear bit it counts for nothing, whatever it says: it may be half written. */
function decodeBitmaps(data: Uint8Array, header: Header, clusterSize: number): BitmapsExtension {
  if (data.length !== BITMAPS_BYTES) {
    throw invalid("bitmaps_ext: Invalid extension length", { length: data.length });
  }
  const extension = {
    count: readU32(data, 0),
    directorySize: readU64(data, 8),
    directoryOffset: readU64(data, 16),
  };
  const fault = faultOf(extension, readU32(data, 4), clusterSize);
  if (fault === undefined) return extension;
  if (header.autoclear.has(Autoclear.bitmaps)) throw fault;
  return NO_BITMAPS;
}

function faultOf(
  { count, directoryOffset, directorySize }: BitmapsExtension,
  reserved: number,
  clusterSize: number,
): BlockError | undefined {
  if (reserved !== 0) return invalid("bitmaps_ext: Reserved field is not zero");
  if (count > BITMAPS_MAX) {
    const what = `bitmaps_ext: Image has ${count} bitmaps, exceeding the QEMU supported maximum of ${BITMAPS_MAX}`;
    return invalid(what, { count, limit: BITMAPS_MAX });
  }
  if (count === 0) return invalid("found bitmaps extension with zero bitmaps");
  if (!isAligned(directoryOffset, clusterSize)) {
    return invalid("bitmaps_ext: invalid bitmap directory offset", { offset: directoryOffset });
  }
  if (directorySize > BITMAP_DIRECTORY_BYTES_MAX) {
    const what = `bitmaps_ext: bitmap directory size (${directorySize}) exceeds the maximum supported size (${BITMAP_DIRECTORY_BYTES_MAX})`;
    return invalid(what, { size: directorySize, limit: BITMAP_DIRECTORY_BYTES_MAX });
  }
  return undefined;
}

function decodeCrypto(data: Uint8Array, header: Header, clusterSize: number): CryptoExtension {
  if (header.cryptMethod !== "luks") {
    throw invalid("CRYPTO header extension only expected with LUKS encryption method");
  }
  if (data.length !== CRYPTO_BYTES) {
    const what = `CRYPTO header extension size ${data.length}, but expected size ${CRYPTO_BYTES}`;
    throw invalid(what, { length: data.length });
  }
  const offset = readU64(data, 0);
  if (!isAligned(offset, clusterSize)) {
    throw invalid(
      `Encryption header offset '${offset}' is not a multiple of cluster size '${clusterSize}'`,
      { offset },
    );
  }
  return { offset, length: readU64(data, 8) };
}

/**
 * Encodes cluster 0 from the end of the header on: extensions in the order in which they are written, and their end.
 *
 * @param names - `undefined` where there is no room for feature names, or no version 3
 */
export function encodeExtensions(
  extensions: HeaderExtensions,
  names: Uint8Array | undefined,
): Uint8Array {
  const parts: Uint8Array[] = [];
  const add = (type: number, data: Uint8Array): void => {
    const part = new Uint8Array(PREFIX + alignUp(data.length, PADDING));
    writeU32(part, 0, type);
    writeU32(part, 4, data.length);
    part.set(data, PREFIX);
    parts.push(part);
  };
  const { backingFormat, dataFile, crypto, bitmaps, unknown } = extensions;
  if (backingFormat !== undefined) add(Extension.backingFormat, encodeText(backingFormat));
  if (dataFile !== undefined) add(Extension.dataFile, encodeText(dataFile));
  if (crypto !== undefined) add(Extension.crypto, encodeCrypto(crypto));
  if (names !== undefined) add(Extension.featureNames, names);
  if (bitmaps !== undefined) add(Extension.bitmaps, encodeBitmaps(bitmaps));
  for (const { type, data } of unknown) add(type, data);
  add(Extension.end, new Uint8Array(0));
  return concatenated(parts);
}

function encodeCrypto({ offset, length }: CryptoExtension): Uint8Array {
  const data = new Uint8Array(CRYPTO_BYTES);
  writeU64(data, 0, offset);
  writeU64(data, 8, length);
  return data;
}

/** Encodes what the extension holds, without type and length. */
export function encodeBitmaps({
  count,
  directorySize,
  directoryOffset,
}: BitmapsExtension): Uint8Array {
  const data = new Uint8Array(BITMAPS_BYTES);
  writeU32(data, 0, count);
  writeU64(data, 8, directorySize);
  writeU64(data, 16, directoryOffset);
  return data;
}

/** Text in an image is bytes in UTF-8; what is no UTF-8 comes out as replacement characters. */
export function decodeText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

export function encodeText(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

export function concatenated(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function invalid(message: string, context: Readonly<Record<string, unknown>> = {}): BlockError {
  return new BlockError("EINVAL", message, context);
}
