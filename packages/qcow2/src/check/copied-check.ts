import { writeU32 } from "@blocklayer/offsets";
import type { Geometry } from "../format/geometry.ts";
import { COPIED_HIGH, clusterKind, entryOffset, isCopied } from "../format/l2-entry.ts";
import type { CheckFile } from "./check-file.ts";
import type { Findings } from "./findings.ts";
import { type TableEntry, type TableExtent, tryRead, walkTables } from "./l1-walk.ts";
import { L2Batch, type L2Visit } from "./l2-batch.ts";

const OFFSET_LOW = 0xfffffe00;

export interface CopiedCheckOptions {
  readonly file: CheckFile;
  readonly geometry: Geometry;
  readonly findings: Findings;
  readonly hasDataFile: boolean;
  /** Whether flags that are wrong are written anew. */
  readonly fixes: boolean;
  /** Whether the count of a cluster in the file is 1; `undefined` for clusters of another window. */
  readonly isSingle: (cluster: number) => boolean | undefined;
}

/**
 * Compares the flags of the active L1 and L2 tables that say "referenced once" with the counts in the file.
 *
 * @see spec/qcow2.md sections 3 and 12
 */
export class CopiedCheck {
  readonly #options: CopiedCheckOptions;
  /** The table that is looked at; tables come one after the other. */
  readonly #bytes: Uint8Array;

  constructor(options: CopiedCheckOptions) {
    this.#options = options;
    this.#bytes = new Uint8Array(options.geometry.clusterSize);
  }

  async run(l1: TableExtent): Promise<void> {
    const { file, geometry, findings } = this.#options;
    const batch = new L2Batch((visit) => this.#checkTable(visit));
    await walkTables(file, findings, [l1], async (entry) => {
      const offset = geometry.startOfCluster(entryOffset(entry.high, entry.low));
      if (offset === 0) return;
      await this.#checkL1(l1, entry, offset);
      if (offset < file.size) await batch.add(offset, 1, 0);
    });
    await batch.flush();
  }

  async #checkL1(l1: TableExtent, entry: TableEntry, offset: number): Promise<void> {
    const { file, geometry, findings, fixes, isSingle } = this.#options;
    const single = isSingle(offset / geometry.clusterSize);
    if (single === undefined || single === isCopied(entry.high)) return;
    const text = (word: string) => (): string =>
      `${word} OFLAG_COPIED L2 cluster: l1_index=${entry.index} l1_entry=${hex(entry)}`;
    if (!fixes) {
      findings.corruption(text("ERROR"));
      return;
    }
    const bytes = new Uint8Array(8);
    writeU32(bytes, 0, toggled(entry.high));
    writeU32(bytes, 4, entry.low);
    try {
      await file.write(l1.offset + entry.index * 8, bytes, "active-l1");
      findings.corruptionFixed(text("Repairing"));
    } catch (error) {
      findings.corruption(text("ERROR"));
      findings.failed("writing the L1 table", error);
    }
  }

  async #checkTable({ offset, active }: L2Visit): Promise<void> {
    const { file, findings, fixes } = this.#options;
    const bytes = this.#bytes;
    if (!(await tryRead(file, findings, offset, bytes))) return;
    const wrong = this.#wrongEntries(bytes);
    if (wrong.length === 0) return;
    const text = (word: string, entry: TableEntry) => (): string =>
      `${word} OFLAG_COPIED data cluster: l2_entry=${hex(entry)}`;
    const isWritten = fixes && (await this.#writeToggled(offset, bytes, wrong));
    for (const entry of wrong) {
      if (isWritten) findings.corruptionFixed(text("Repairing", entry));
      else findings.corruption(text("ERROR", entry), active);
    }
  }

  /** Entries whose flag is wrong, by their number. */
  #wrongEntries(bytes: Uint8Array): TableEntry[] {
    const { geometry, hasDataFile, isSingle } = this.#options;
    const { clusterSize, entrySize, extendedL2 } = geometry;
    const wrong: TableEntry[] = [];
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    for (let at = 0; at < clusterSize; at += entrySize) {
      const high = view.getUint32(at);
      const low = view.getUint32(at + 4);
      if (high === 0 && low === 0) continue;
      const kind = clusterKind(high, extendedL2 ? low & OFFSET_LOW : low, hasDataFile);
      if (kind !== "normal" && kind !== "zero-alloc") continue;
      const single = isSingle(hasDataFile ? 0 : Math.floor(entryOffset(high, low) / clusterSize));
      if (single === undefined || (hasDataFile || single) === isCopied(high)) continue;
      wrong.push({ high, low, index: at / entrySize, times: 1 });
    }
    return wrong;
  }

  async #writeToggled(
    table: number,
    bytes: Uint8Array,
    wrong: readonly TableEntry[],
  ): Promise<boolean> {
    const { file, geometry, findings } = this.#options;
    const { entrySize } = geometry;
    for (const { index, high } of wrong) writeU32(bytes, index * entrySize, toggled(high));
    const start = (wrong[0]?.index ?? 0) * entrySize;
    const end = ((wrong.at(-1)?.index ?? 0) + 1) * entrySize;
    try {
      await file.write(table + start, bytes.subarray(start, end), "active-l2");
      return true;
    } catch (error) {
      findings.failed("writing an L2 table", error);
      return false;
    }
  }
}

function toggled(high: number): number {
  return (high ^ COPIED_HIGH) >>> 0;
}

function hex({ high, low }: TableEntry): string {
  return (BigInt(high) * 2n ** 32n + BigInt(low)).toString(16);
}
