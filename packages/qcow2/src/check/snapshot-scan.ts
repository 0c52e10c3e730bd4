import type { RepairMode } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import {
  alignUp,
  isAligned,
  isSafeSize,
  readU16,
  readU32,
  readU64,
  writeU32,
  writeU64,
} from "@blocklayer/offsets";
import {
  L1_BYTES_MAX,
  SNAPSHOT_EXTRA_MAX,
  SNAPSHOT_HEADER_BYTES,
  SNAPSHOT_TABLE_BYTES_MAX,
  SNAPSHOTS_MAX,
} from "../format/constants.ts";
import type { Geometry } from "../format/geometry.ts";
import type { Header } from "../format/header.ts";
import { concatenated, decodeText } from "../format/header-extensions.ts";
import type { CheckFile } from "./check-file.ts";
import type { Findings } from "./findings.ts";
import type { TableExtent } from "./l1-walk.ts";

/** Extra data that an image of version 3 has at least, and what is written. Bytes. */
const EXTRA_MIN = 16;
const EXTRA = 24;
const ALIGNMENT = 8;
/** Bytes that are read at a time. */
const CHUNK = 65536;

/** The table of snapshots as it is, or as it will be. */
export interface ScannedSnapshots {
  /** Where the table is now, for counting. */
  readonly extent: TableExtent;
  /** L1 tables of those whose record can be relied on. */
  readonly l1Tables: readonly TableExtent[];
  /** The table to write instead, `undefined` when it is right as it is. */
  readonly replacement: SnapshotReplacement | undefined;
}

export interface SnapshotReplacement {
  readonly bytes: Uint8Array;
  readonly count: number;
  /** Corruptions that are gone when it is written. */
  readonly fixes: number;
}

const NONE: ScannedSnapshots = {
  extent: { offset: 0, length: 0 },
  l1Tables: [],
  replacement: undefined,
};

/** What is known of a record before its text is read. */
interface RecordShape {
  readonly length: number;
  readonly extra: number;
}

/**
 * Reads the table of snapshots of an image that may be damaged. With repair `"all"`, records that cannot be are mended
 * or left out.
 *
 * @throws BlockError `EINVAL` it is at no cluster, or ends beyond the file; `EFBIG` it is too large: both only without
 *   repair `"all"`, apart from its place
 * @see spec/qcow2.md sections 11 and 12
 */
export async function scanSnapshots(
  file: CheckFile,
  header: Header,
  geometry: Geometry,
  findings: Findings,
): Promise<ScannedSnapshots> {
  if (header.snapshotCount === 0) return NONE;
  const { snapshotTableOffset: offset } = header;
  if (!isSafeSize(offset) || !isAligned(offset, geometry.clusterSize)) {
    throw new BlockError("EINVAL", "snapshot table offset invalid", { offset });
  }
  const scan = new SnapshotScan(file, header, geometry, findings);
  return await scan.run();
}

class SnapshotScan {
  readonly #file: CheckFile;
  readonly #header: Header;
  readonly #geometry: Geometry;
  readonly #findings: Findings;
  readonly #records: Uint8Array[] = [];
  readonly #l1Tables: TableExtent[] = [];
  #fixes = 0;
  #buffer: Uint8Array = new Uint8Array(0);
  /** Bytes from the start of the host file. */
  #bufferOffset = 0;

  constructor(file: CheckFile, header: Header, geometry: Geometry, findings: Findings) {
    this.#file = file;
    this.#header = header;
    this.#geometry = geometry;
    this.#findings = findings;
  }

  get #repair(): RepairMode {
    return this.#findings.repair;
  }

  async run(): Promise<ScannedSnapshots> {
    const { snapshotCount, snapshotTableOffset: offset } = this.#header;
    const count = Math.min(snapshotCount, SNAPSHOTS_MAX);
    if (count < snapshotCount)
      this.#drop(snapshotCount - count, "EFBIG", "snapshot table too large");
    let length = 0;
    for (let index = 0; index < count; index += 1) {
      const at = alignUp(length, ALIGNMENT);
      const shape = await this.#shape(offset + at);
      const isInside = shape !== undefined && offset + at + shape.length <= this.#file.size;
      if (!isInside) {
        const text = `failed to read the snapshot table: it ends within entry ${index}`;
        this.#drop(count - index, "EINVAL", text);
        break;
      }
      if (at + shape.length > SNAPSHOT_TABLE_BYTES_MAX) {
        this.#drop(count - index, "EFBIG", "failed to read the snapshot table: it is too big");
        break;
      }
      await this.#take(index, offset + at, shape);
      length = at + shape.length;
    }
    const l1Tables = this.#l1Tables;
    return { extent: { offset, length }, l1Tables, replacement: this.#replacement() };
  }

  #replacement(): SnapshotReplacement | undefined {
    if (this.#fixes === 0) return undefined;
    const padded = this.#records.map((record, index) => {
      const isLast = index === this.#records.length - 1;
      const bytes = new Uint8Array(isLast ? record.length : alignUp(record.length, ALIGNMENT));
      bytes.set(record);
      return bytes;
    });
    return { bytes: concatenated(padded), count: padded.length, fixes: this.#fixes };
  }

  /** What the record says of its length; `undefined` when the table is over: the file ends, or nothing follows. */
  async #shape(at: number): Promise<RecordShape | undefined> {
    if (at + SNAPSHOT_HEADER_BYTES > this.#file.size) return undefined;
    const head = await this.#bytes(at, SNAPSHOT_HEADER_BYTES);
    if (head.every((byte) => byte === 0)) return undefined;
    const extra = readU32(head, 36);
    return { extra, length: SNAPSHOT_HEADER_BYTES + extra + readU16(head, 12) + readU16(head, 14) };
  }

  async #take(index: number, at: number, { extra, length }: RecordShape): Promise<void> {
    const kept = Math.min(extra, SNAPSHOT_EXTRA_MAX);
    if (kept < extra) this.#tellExtra(index, extra);
    const start = await this.#bytes(at, SNAPSHOT_HEADER_BYTES + kept);
    const head = start.slice();
    const texts = await this.#bytes(
      at + SNAPSHOT_HEADER_BYTES + extra,
      length - SNAPSHOT_HEADER_BYTES - extra,
    );
    if (this.#header.version === 3 && extra < EXTRA_MIN) this.#tellIncomplete(index);
    this.#records.push(concatenated([this.#complete(head), texts]));
    this.#takeL1(head, texts);
  }

  /** The record up to its texts, with all the extra data that is written today. */
  #complete(head: Uint8Array): Uint8Array {
    const extra = head.length - SNAPSHOT_HEADER_BYTES;
    if (extra >= EXTRA) {
      writeU32(head, 36, extra);
      return head;
    }
    const bytes = new Uint8Array(SNAPSHOT_HEADER_BYTES + EXTRA);
    bytes.set(head);
    writeU32(bytes, 36, EXTRA);
    if (extra < 8) writeU64(bytes, 40, readU32(head, 32));
    if (extra < EXTRA_MIN) writeU64(bytes, 48, this.#header.size);
    // No count of instructions.
    bytes.fill(0xff, 56, 64);
    return bytes;
  }

  #takeL1(head: Uint8Array, texts: Uint8Array): void {
    const offset = readU64(head, 0);
    const entries = readU32(head, 8);
    const idLength = readU16(head, 12);
    const label = (): string => {
      const id = decodeText(texts.subarray(0, idLength));
      return `ERROR snapshot ${id} (${decodeText(texts.subarray(idLength))})`;
    };
    if (!isAligned(offset, this.#geometry.clusterSize)) {
      const where = (): string => `${label()} l1_offset=0x${offset.toString(16)}`;
      this.#findings.corruption(
        () => `${where()}: L1 table is not cluster aligned; snapshot table entry corrupted`,
      );
    } else if (entries * 8 > L1_BYTES_MAX) {
      const where = (): string => `${label()} l1_size=0x${entries.toString(16)}`;
      this.#findings.corruption(
        () => `${where()}: L1 table is too large; snapshot table entry corrupted`,
      );
    } else {
      this.#l1Tables.push({ offset, length: entries * 8 });
    }
  }

  #tellIncomplete(index: number): void {
    const isAll = this.#repair === "all";
    const word = isAll ? "Repairing" : "ERROR";
    this.#findings.corruption(() => `${word} snapshot table entry ${index} is incomplete`);
    if (isAll) this.#fixes += 1;
  }

  #tellExtra(index: number, extra: number): void {
    const context = { index, bytes: extra, limit: SNAPSHOT_EXTRA_MAX };
    const message = `failed to read the snapshot table: Too much extra metadata in snapshot table entry ${index}`;
    if (this.#repair !== "all") throw new BlockError("EFBIG", message, context, { hint: HINT });
    const text = `Discarding too much extra metadata in snapshot table entry ${index} (${extra} > ${SNAPSHOT_EXTRA_MAX})`;
    this.#findings.corruption(() => text);
    this.#fixes += 1;
  }

  /** Leaves out records behind those that can be read. */
  #drop(count: number, code: string, message: string): void {
    if (this.#repair !== "all") {
      throw new BlockError(code, message, { overhanging: count }, { hint: HINT });
    }
    this.#findings.corruption(() => `Discarding ${count} overhanging snapshots`, count);
    this.#fixes += count;
  }

  /** Bytes of the host file; of use until the next call. */
  async #bytes(at: number, length: number): Promise<Uint8Array> {
    const end = this.#bufferOffset + this.#buffer.length;
    if (at < this.#bufferOffset || at + length > end) {
      this.#buffer = new Uint8Array(Math.max(length, CHUNK));
      this.#bufferOffset = at;
      await this.#file.read(at, this.#buffer);
    }
    const start = at - this.#bufferOffset;
    return this.#buffer.subarray(start, start + length);
  }
}

const HINT =
  "a repair of everything removes what is too much, and the snapshots that cannot be read";
