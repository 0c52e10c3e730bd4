import { EntryChange } from "../data/entry-change.ts";
import { entryOffset } from "../format/l2-entry.ts";
import { isCompressed, type L2Words } from "../image/mapping.ts";
import type { DiscardClass } from "../image/pending-frees.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";

/**
 * Makes whole clusters as if they had never been written: nothing is allocated, and the backing file answers.
 * Nobody else changes the mapping meanwhile.
 *
 * @param start - guest bytes, at a cluster
 * @param end - guest bytes, at a cluster; may lie behind the end of the disk
 */
export async function clearRange(
  image: Qcow2Image,
  start: number,
  end: number,
  discard: DiscardClass,
): Promise<void> {
  const { geometry, l2, mapping } = image;
  const entries = new EntryChange(image);
  for (let at = start; at < end; ) {
    const index = geometry.l1Index(at);
    if (index >= l2.l1.entries) return;
    if (l2.tableOffset(index) === 0) {
      at = (index + 1) * geometry.l1Span;
      continue;
    }
    const words = mapping.words(at);
    if (words === undefined) {
      await mapping.load(at);
      continue;
    }
    if (!isEmpty(words)) await entries.within(at, (now) => entries.unlink(at, now, discard));
    at += geometry.clusterSize;
  }
}

/** Frees the L2 tables from an L1 index on; their entries are all empty. */
export function dropTables(image: Qcow2Image, firstIndex: number): void {
  const { l2, file, frees, geometry } = image;
  for (let index = firstIndex; index < l2.l1.entries; index += 1) {
    const offset = entryOffset(l2.l1.high(index), l2.l1.low(index));
    if (offset === 0) continue;
    l2.l1.set(index, 0, 0);
    l2.cache.drop(offset, geometry.clusterSize);
    file.metadata.deleteCluster("active-l2", offset);
    frees.add({ offset, length: geometry.clusterSize, discard: "always" });
  }
}

function isEmpty(words: L2Words): boolean {
  const { high, low, zeroes, allocated } = words;
  if (isCompressed(words)) return false;
  return high === 0 && low === 0 && zeroes === 0 && allocated === 0;
}
