import type { Geometry } from "../format/geometry.ts";
import { entryOffset } from "../format/l2-entry.ts";
import type { CheckFile } from "./check-file.ts";
import type { Findings } from "./findings.ts";
import { type TableEntry, type TableExtent, walkTables } from "./l1-walk.ts";
import { L2Batch } from "./l2-batch.ts";
import type { L2Check } from "./l2-check.ts";
import type { ReferenceCounter } from "./reference-counter.ts";

/** Bits 56 to 62 of an L1 entry, in its upper half. */
const RESERVED_HIGH = 0x7f000000;
/** Bits 0 to 8, in the lower half. */
const RESERVED_LOW = 0x1ff;

/** Where the L1 tables of an image are. */
export interface Trees {
  readonly active: TableExtent;
  readonly snapshots: readonly TableExtent[];
}

/** Counts everything that L1 tables lead to: the tables themselves, L2 tables, and what these refer to. */
export async function countTrees(
  { active, snapshots }: Trees,
  options: {
    readonly file: CheckFile;
    readonly geometry: Geometry;
    readonly findings: Findings;
    readonly counter: ReferenceCounter;
    readonly l2: L2Check;
  },
): Promise<void> {
  const { file, geometry, findings, counter, l2 } = options;
  const batch = new L2Batch((visit) => l2.check(visit));
  const visitor = (isActive: boolean) => (entry: TableEntry) => {
    const offset = l2TableOf(entry, geometry, findings);
    if (offset === 0) return undefined;
    const { times } = entry;
    counter.add(offset, geometry.clusterSize, times);
    if (offset >= file.size) return undefined;
    return batch.add(offset, isActive ? times : 0, isActive ? 0 : times);
  };
  for (const { offset, length } of [active, ...snapshots]) counter.add(offset, length);
  await walkTables(file, findings, [active], visitor(true));
  await walkTables(file, findings, snapshots, visitor(false));
  await batch.flush();
}

/**
 * Returns where the L2 table of an L1 entry begins, 0 for none.
 *
 * Differs: an offset within a cluster counts for the cluster, so that what the table holds is not taken for unused.
 */
function l2TableOf(entry: TableEntry, geometry: Geometry, findings: Findings): number {
  const { high, low, times } = entry;
  if ((high & RESERVED_HIGH) !== 0 || (low & RESERVED_LOW) !== 0) {
    const word = (): string => (BigInt(high) * 2n ** 32n + BigInt(low)).toString(16);
    findings.corruption(() => `ERROR found L1 entry with reserved bits set: ${word()}`, times);
  }
  const offset = entryOffset(high, low);
  const start = geometry.startOfCluster(offset);
  if (offset !== start) {
    const text = (): string =>
      `ERROR l2_offset=${offset.toString(16)}: Table is not cluster aligned; L1 entry corrupted`;
    findings.corruption(text, times);
  }
  return start;
}
