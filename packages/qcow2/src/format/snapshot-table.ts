import { BlockError } from "@blocklayer/errors";
import {
  alignUp,
  isAligned,
  isSafeSize,
  readU16,
  readU32,
  readU64,
  writeU16,
  writeU32,
  writeU64,
} from "@blocklayer/offsets";
import {
  L1_BYTES_MAX,
  SNAPSHOT_EXTRA_MAX,
  SNAPSHOT_HEADER_BYTES,
  SNAPSHOT_TABLE_BYTES_MAX,
} from "./constants.ts";
import type { Geometry } from "./geometry.ts";
import { concatenated, decodeText, encodeText } from "./header-extensions.ts";

/** A snapshot as the image stores it. */
export interface SnapshotRecord {
  readonly id: string;
  readonly name: string;
  /** Bytes. */
  readonly l1Offset: number;
  /** Entries. */
  readonly l1Size: number;
  /** Bytes of the disk. */
  readonly diskSize: number;
  /** Seconds since 1970. */
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
  readonly vmClockNs: number;
  /** Bytes. */
  readonly vmStateSize: number;
  /** Executed instructions, `undefined` for none. */
  readonly icount: bigint | undefined;
  /** Extra data behind what is known here, kept as it is. */
  readonly unknownExtra: Uint8Array;
}

const ALIGNMENT = 8;
/** Bytes of extra data that are written: sizes of VM state and disk, instruction count. */
const EXTRA = 24;
const NO_ICOUNT = 2n ** 64n - 1n;

/** What the rest of the image says, for a table of snapshots. */
export interface SnapshotTableContext {
  readonly geometry: Geometry;
  readonly version: 2 | 3;
  /** Bytes: of the disk, for snapshots that do not say. */
  readonly diskSize: number;
}

/**
 * Decodes `count` records from the start of `bytes`.
 *
 * @returns the records, and how many bytes they take
 * @throws BlockError `EINVAL` a record ends beyond `bytes`, or cannot be; `EFBIG` too large
 * @see spec/qcow2.md section 11
 */
export function decodeSnapshots(
  bytes: Uint8Array,
  count: number,
  context: SnapshotTableContext,
): { readonly snapshots: readonly SnapshotRecord[]; readonly length: number } {
  const snapshots: SnapshotRecord[] = [];
  let at = 0;
  for (let index = 0; index < count; index += 1) {
    at = alignUp(at, ALIGNMENT);
    if (at + SNAPSHOT_HEADER_BYTES > bytes.length) throw truncated(index);
    const length = recordLength(bytes, at, index);
    if (at + length > bytes.length) throw truncated(index);
    snapshots.push(decodeOne(bytes.subarray(at, at + length), index, context));
    at += length;
    if (at > SNAPSHOT_TABLE_BYTES_MAX) {
      throw new BlockError("EFBIG", "Snapshot table is too big", {
        bytes: at,
        limit: SNAPSHOT_TABLE_BYTES_MAX,
      });
    }
  }
  return { snapshots, length: at };
}

function recordLength(bytes: Uint8Array, at: number, index: number): number {
  const extra = readU32(bytes, at + 36);
  if (extra > SNAPSHOT_EXTRA_MAX) {
    throw invalid(index, "Too much extra metadata", { bytes: extra, limit: SNAPSHOT_EXTRA_MAX });
  }
  return SNAPSHOT_HEADER_BYTES + extra + readU16(bytes, at + 12) + readU16(bytes, at + 14);
}

function decodeOne(
  record: Uint8Array,
  index: number,
  { geometry, version, diskSize }: SnapshotTableContext,
): SnapshotRecord {
  const extraLength = readU32(record, 36);
  const extra = record.subarray(SNAPSHOT_HEADER_BYTES, SNAPSHOT_HEADER_BYTES + extraLength);
  if (version === 3 && extraLength < 16) {
    throw invalid(index, "lacks the extra data of version 3", { bytes: extraLength, least: 16 });
  }
  const l1Offset = readU64(record, 0);
  const l1Size = readU32(record, 8);
  if (l1Size * 8 > L1_BYTES_MAX) {
    throw new BlockError("EFBIG", "Snapshot L1 table too large", {
      bytes: l1Size * 8,
      limit: L1_BYTES_MAX,
    });
  }
  if (!isSafeSize(l1Offset) || !isAligned(l1Offset, geometry.clusterSize)) {
    throw invalid(index, "Snapshot L1 table offset invalid", { offset: l1Offset });
  }
  const size = extraLength >= 16 ? readU64(extra, 8) : diskSize;
  if (!isSafeSize(size)) throw invalid(index, "its disk is too large", { size });
  const idEnd = SNAPSHOT_HEADER_BYTES + extraLength + readU16(record, 12);
  const icount =
    extraLength >= EXTRA
      ? new DataView(extra.buffer, extra.byteOffset).getBigUint64(16)
      : NO_ICOUNT;
  return {
    id: decodeText(record.subarray(SNAPSHOT_HEADER_BYTES + extraLength, idEnd)),
    name: decodeText(record.subarray(idEnd)),
    l1Offset,
    l1Size,
    diskSize: size,
    dateSeconds: readU32(record, 16),
    dateNanoseconds: readU32(record, 20),
    vmClockNs: readU64(record, 24),
    vmStateSize: extraLength >= 8 ? readU64(extra, 0) : readU32(record, 32),
    icount: icount === NO_ICOUNT ? undefined : icount,
    unknownExtra: extra.slice(EXTRA),
  };
}

/** Encodes a table of snapshots. */
export function encodeSnapshots(snapshots: readonly SnapshotRecord[]): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const [index, snapshot] of snapshots.entries()) {
    const record = encodeOne(snapshot);
    const isLast = index === snapshots.length - 1;
    const padded = new Uint8Array(isLast ? record.length : alignUp(record.length, ALIGNMENT));
    padded.set(record);
    parts.push(padded);
  }
  return concatenated(parts);
}

function encodeOne(snapshot: SnapshotRecord): Uint8Array {
  const id = encodeText(snapshot.id);
  const name = encodeText(snapshot.name);
  const extraLength = EXTRA + snapshot.unknownExtra.length;
  const record = new Uint8Array(SNAPSHOT_HEADER_BYTES + extraLength + id.length + name.length);
  writeU64(record, 0, snapshot.l1Offset);
  writeU32(record, 8, snapshot.l1Size);
  writeU16(record, 12, id.length);
  writeU16(record, 14, name.length);
  writeU32(record, 16, snapshot.dateSeconds);
  writeU32(record, 20, snapshot.dateNanoseconds);
  writeU64(record, 24, snapshot.vmClockNs);
  writeU32(record, 32, snapshot.vmStateSize < 2 ** 32 ? snapshot.vmStateSize : 0);
  writeU32(record, 36, extraLength);
  writeU64(record, 40, snapshot.vmStateSize);
  writeU64(record, 48, snapshot.diskSize);
  new DataView(record.buffer).setBigUint64(56, snapshot.icount ?? NO_ICOUNT);
  record.set(snapshot.unknownExtra, SNAPSHOT_HEADER_BYTES + EXTRA);
  record.set(id, SNAPSHOT_HEADER_BYTES + extraLength);
  record.set(name, SNAPSHOT_HEADER_BYTES + extraLength + id.length);
  return record;
}

function truncated(index: number): BlockError {
  return new BlockError("EINVAL", `the snapshot table ends within snapshot ${index}`, { index });
}

function invalid(
  index: number,
  message: string,
  context: Readonly<Record<string, unknown>>,
): BlockError {
  return new BlockError("EINVAL", `snapshot ${index}: ${message}`, { index, ...context });
}
