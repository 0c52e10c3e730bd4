import { BlockError } from "@blocklayer/errors";
import { isAligned, isSafeSize, readU32, readU64, writeU32, writeU64 } from "@blocklayer/offsets";
import {
  BACKING_NAME_MAX,
  CLUSTER_BITS_MAX,
  CLUSTER_BITS_MIN,
  COMPRESSION_TYPES,
  type CompressionType,
  CRYPT_METHODS,
  type CryptMethod,
  EXTENDED_CLUSTER_MIN,
  HEADER_LENGTH,
  HEADER_LENGTH_V2,
  HEADER_LENGTH_V3_MIN,
  Incompatible,
  L1_BYTES_MAX,
  MAGIC,
  REFCOUNT_ORDER_MAX,
  REFCOUNT_TABLE_BYTES_MAX,
  SNAPSHOT_HEADER_BYTES,
  SNAPSHOTS_MAX,
  SUBCLUSTERS,
} from "./constants.ts";
import { FeatureWord } from "./feature-word.ts";
import { Geometry } from "./geometry.ts";

/** The fixed part of cluster 0, decoded. Offsets and sizes in bytes unless they say otherwise. */
export interface Header {
  readonly version: 2 | 3;
  /** 0 for none. */
  readonly backingNameOffset: number;
  readonly backingNameLength: number;
  readonly clusterBits: number;
  /** Size of the disk. */
  readonly size: number;
  readonly cryptMethod: CryptMethod;
  /** Entries. */
  readonly l1Size: number;
  readonly l1Offset: number;
  readonly refcountTableOffset: number;
  readonly refcountTableClusters: number;
  readonly snapshotCount: number;
  readonly snapshotTableOffset: number;
  readonly incompatible: FeatureWord;
  readonly compatible: FeatureWord;
  readonly autoclear: FeatureWord;
  readonly refcountOrder: number;
  /** As it is stored. */
  readonly headerLength: number;
  readonly compressionType: CompressionType;
  /** Bytes behind the fields known here, kept as they are. */
  readonly unknownFields: Uint8Array;
}

/** Bytes to read before the fields can be decoded. */
export const HEADER_PROBE_BYTES: number = HEADER_LENGTH;

/**
 * Decodes the fields of a header and checks those that others are found by: magic, version, cluster size, header
 * length. The rest is checked by {@link checkHeader}, so that the name of an unknown feature can be told.
 *
 * @param bytes - from the start of the file: at least the whole header, as long as the file has it
 * @throws BlockError `EINVAL` no image, or damaged; `ENOTSUP` another version
 * @see spec/qcow2.md section 1
 */
export function decodeHeader(bytes: Uint8Array): Header {
  if (bytes.length < 4 || readU32(bytes, 0) !== MAGIC) {
    throw invalid("Image is not in qcow2 format");
  }
  if (bytes.length < HEADER_LENGTH_V2) throw invalid("qcow2 header too short");
  const version = readU32(bytes, 4);
  if (version !== 2 && version !== 3) {
    throw new BlockError("ENOTSUP", `Unsupported qcow2 version ${version}`, { version });
  }
  const clusterBits = readU32(bytes, 20);
  if (clusterBits < CLUSTER_BITS_MIN || clusterBits > CLUSTER_BITS_MAX) {
    throw invalid(`Unsupported cluster size: 2^${clusterBits}`, { clusterBits });
  }
  const headerLength = version === 2 ? HEADER_LENGTH_V2 : headerLengthOf(bytes, clusterBits);
  if (bytes.length < headerLength) throw invalid("qcow2 header too short", { headerLength });
  return {
    version,
    clusterBits,
    headerLength,
    backingNameOffset: readU64(bytes, 8),
    backingNameLength: readU32(bytes, 16),
    size: readU64(bytes, 24),
    cryptMethod: nameOf(CRYPT_METHODS, readU32(bytes, 32), "Unsupported encryption method"),
    l1Size: readU32(bytes, 36),
    l1Offset: readU64(bytes, 40),
    refcountTableOffset: readU64(bytes, 48),
    refcountTableClusters: readU32(bytes, 56),
    snapshotCount: readU32(bytes, 60),
    snapshotTableOffset: readU64(bytes, 64),
    ...(version === 2 ? FIELDS_V2 : fieldsV3(bytes, headerLength)),
  };
}

type LaterFields = Pick<
  Header,
  | "incompatible"
  | "compatible"
  | "autoclear"
  | "refcountOrder"
  | "compressionType"
  | "unknownFields"
>;

const FIELDS_V2: LaterFields = {
  incompatible: FeatureWord.none,
  compatible: FeatureWord.none,
  autoclear: FeatureWord.none,
  refcountOrder: 4,
  compressionType: "zlib",
  unknownFields: new Uint8Array(0),
};

function headerLengthOf(bytes: Uint8Array, clusterBits: number): number {
  if (bytes.length < HEADER_LENGTH_V3_MIN) throw invalid("qcow2 header too short");
  const headerLength = readU32(bytes, 100);
  if (headerLength < HEADER_LENGTH_V3_MIN) {
    throw invalid("qcow2 header too short", { headerLength, least: HEADER_LENGTH_V3_MIN });
  }
  if (headerLength > 2 ** clusterBits) {
    throw invalid("qcow2 header exceeds cluster size", { headerLength, limit: 2 ** clusterBits });
  }
  return headerLength;
}

function fieldsV3(bytes: Uint8Array, headerLength: number): LaterFields {
  const type = headerLength > HEADER_LENGTH_V3_MIN ? (bytes[104] ?? 0) : 0;
  return {
    incompatible: FeatureWord.read(bytes, 72),
    compatible: FeatureWord.read(bytes, 80),
    autoclear: FeatureWord.read(bytes, 88),
    refcountOrder: readU32(bytes, 96),
    compressionType: nameOf(COMPRESSION_TYPES, type, "qcow2: unknown compression type:"),
    unknownFields: bytes.slice(Math.min(HEADER_LENGTH, headerLength), headerLength),
  };
}

function nameOf<Name>(names: readonly Name[], index: number, message: string): Name {
  const name = names[index];
  if (name === undefined) throw invalid(`${message} ${index}`, { value: index });
  return name;
}

/**
 * Checks what a header says, before memory is taken for any table.
 *
 * @param forCheck - an image without a refcount table passes, and any table of snapshots: repairing mends them
 * @returns the sizes that follow
 * @throws BlockError `EINVAL`, `EFBIG`
 * @see spec/qcow2.md section 1
 */
export function checkHeader(header: Header, forCheck = false): Geometry {
  checkFeatures(header);
  const geometry = new Geometry({
    clusterBits: header.clusterBits,
    extendedL2: header.incompatible.has(Incompatible.extendedL2),
    refcountOrder: header.refcountOrder,
  });
  if (header.refcountTableClusters === 0 && !forCheck) {
    throw invalid("Image does not contain a reference count table");
  }
  checkBackingName(header, geometry);
  const entriesPerCluster = geometry.clusterSize / 8;
  checkTable(header.refcountTableOffset, geometry, {
    title: "Reference count table",
    count: header.refcountTableClusters * entriesPerCluster,
    entrySize: 8,
    bytesMax: REFCOUNT_TABLE_BYTES_MAX,
  });
  if (!forCheck) {
    checkTable(header.snapshotTableOffset, geometry, {
      title: "Snapshot table",
      count: header.snapshotCount,
      entrySize: SNAPSHOT_HEADER_BYTES,
      bytesMax: SNAPSHOTS_MAX * SNAPSHOT_HEADER_BYTES,
    });
  }
  if (!isSafeSize(header.size) || geometry.l1EntriesFor(header.size) >= 2 ** 31) {
    throw new BlockError("EFBIG", "Image is too big", { size: header.size });
  }
  checkTable(header.l1Offset, geometry, {
    title: "Active L1 table",
    count: header.l1Size,
    entrySize: 8,
    bytesMax: L1_BYTES_MAX,
  });
  const needed = geometry.l1EntriesFor(header.size);
  if (header.l1Size < needed) {
    throw invalid("L1 table is too small", { entries: header.l1Size, needed });
  }
  return geometry;
}

function checkFeatures({
  version,
  incompatible,
  compressionType,
  refcountOrder,
  clusterBits,
}: Header): void {
  if (incompatible.has(Incompatible.extendedL2) && 2 ** clusterBits < EXTENDED_CLUSTER_MIN) {
    throw invalid(`Unsupported subcluster size: ${2 ** clusterBits / SUBCLUSTERS}`);
  }
  if (refcountOrder > REFCOUNT_ORDER_MAX) {
    throw invalid("Reference count entry width too large; may not exceed 64 bits", {
      refcountOrder,
      limit: REFCOUNT_ORDER_MAX,
    });
  }
  if (version === 2) return;
  const isOther = compressionType !== "zlib";
  if (isOther !== incompatible.has(Incompatible.compressionType)) {
    const must = isOther ? "must" : "must not";
    throw invalid(`qcow2: Compression type incompatible feature bit ${must} be set`);
  }
}

function checkBackingName(header: Header, { clusterSize }: Geometry): void {
  const { backingNameOffset, backingNameLength } = header;
  if (backingNameOffset === 0) return;
  if (backingNameOffset > clusterSize) {
    throw invalid("Invalid backing file offset", { offset: backingNameOffset });
  }
  const limit = Math.min(BACKING_NAME_MAX, clusterSize - backingNameOffset);
  if (backingNameLength > limit) {
    throw invalid("Backing file name too long", { length: backingNameLength, limit });
  }
}

interface TableShape {
  readonly title: string;
  readonly count: number;
  readonly entrySize: number;
  readonly bytesMax: number;
}

/** @throws BlockError `EFBIG` too large; `EINVAL` not at a cluster, or behind every file */
export function checkTable(offset: number, geometry: Geometry, shape: TableShape): void {
  const { title, count, entrySize, bytesMax } = shape;
  const bytes = count * entrySize;
  if (bytes > bytesMax) {
    throw new BlockError("EFBIG", `${title} too large`, { bytes, limit: bytesMax });
  }
  if (
    !isSafeSize(offset) ||
    !isAligned(offset, geometry.clusterSize) ||
    !isSafeSize(offset + bytes)
  ) {
    throw invalid(`${title} offset invalid`, { offset });
  }
}

/**
 * Encodes the fixed part of cluster 0.
 *
 * @returns 72 bytes for version 2; for version 3 those of the fields known here, and the unknown ones
 */
export function encodeHeader(header: Header): Uint8Array {
  const isV2 = header.version === 2;
  const length = isV2 ? HEADER_LENGTH_V2 : HEADER_LENGTH + header.unknownFields.length;
  const bytes = new Uint8Array(length);
  writeU32(bytes, 0, MAGIC);
  writeU32(bytes, 4, header.version);
  writeU64(bytes, 8, header.backingNameOffset);
  writeU32(bytes, 16, header.backingNameLength);
  writeU32(bytes, 20, header.clusterBits);
  writeU64(bytes, 24, header.size);
  writeU32(bytes, 32, CRYPT_METHODS.indexOf(header.cryptMethod));
  writeU32(bytes, 36, header.l1Size);
  writeU64(bytes, 40, header.l1Offset);
  writeU64(bytes, 48, header.refcountTableOffset);
  writeU32(bytes, 56, header.refcountTableClusters);
  writeU32(bytes, 60, header.snapshotCount);
  writeU64(bytes, 64, header.snapshotTableOffset);
  if (isV2) return bytes;
  header.incompatible.write(bytes, 72);
  header.compatible.write(bytes, 80);
  header.autoclear.write(bytes, 88);
  writeU32(bytes, 96, header.refcountOrder);
  writeU32(bytes, 100, length);
  bytes[104] = COMPRESSION_TYPES.indexOf(header.compressionType);
  bytes.set(header.unknownFields, HEADER_LENGTH);
  return bytes;
}

function invalid(message: string, context: Readonly<Record<string, unknown>> = {}): BlockError {
  return new BlockError("EINVAL", message, context);
}
