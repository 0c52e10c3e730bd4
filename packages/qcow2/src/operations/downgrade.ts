import { EntryChange } from "../data/entry-change.ts";
import type { Writer } from "../data/writer.ts";
import { FeatureWord } from "../format/feature-word.ts";
import {
  COMPRESSED_HIGH,
  entryOffset,
  highOf,
  isValidHostOffset,
  lowOf,
  ZERO_LOW,
} from "../format/l2-entry.ts";
import type { SnapshotRecord } from "../format/snapshot-table.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";
import { unsupported } from "./amend-options.ts";
import { type HostExtent, type TreeTable, treeTables } from "./cluster-tree.ts";

/**
 * Makes an image of version 3 one of version 2: clusters that read as zeroes by a flag get what version 2 has for them,
 * data where a backing file would show, else nothing; then the header is written. Until then the image is one of
 * version 3.
 *
 * Nobody else uses the image meanwhile; it has nothing else that version 2 lacks.
 *
 * @param tell - called with bytes of the image file that were dealt with
 * @throws BlockError `ENOTSUP` clusters are compressed in a way that version 2 has not; what reading and writing report
 * @see spec/qcow2.md section 15
 */
export async function downgrade(
  image: Qcow2Image,
  writer: Writer,
  snapshots: readonly SnapshotRecord[],
  tell: (bytes: number) => void,
): Promise<void> {
  const { header, l2, writeback } = image;
  image.settings = { ...image.settings, lazyRefcounts: false };
  await writeback.finish();
  const tables: Uint8Array[] = [l2.l1.bytes.slice()];
  for (const snapshot of snapshots) tables.push(await readL1(image, snapshot));
  if (header.header.compressionType !== "zlib") {
    for (const table of tables) await refuseCompressed(image, table);
  }
  await expandActive(image, writer, tell);
  await writeback.finish();
  const seen = new Set<number>();
  for (const table of tables.slice(1)) {
    for await (const one of treeTables(image, table)) {
      if (!seen.has(one.offset)) await expandTable(image, one);
      seen.add(one.offset);
    }
  }
  await writeback.finish();
  await image.clean();
  await header.update({
    header: {
      version: 2,
      incompatible: FeatureWord.none,
      compatible: FeatureWord.none,
      autoclear: FeatureWord.none,
      compressionType: "zlib",
      unknownFields: new Uint8Array(0),
    },
  });
}

async function readL1(
  { file }: Qcow2Image,
  { l1Offset, l1Size }: SnapshotRecord,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(l1Size * 8);
  if (bytes.length > 0) await file.read(l1Offset, bytes);
  return bytes;
}

async function refuseCompressed(image: Qcow2Image, l1: Uint8Array): Promise<void> {
  for await (const { view } of treeTables(image, l1)) {
    for (let at = 0; at < view.byteLength; at += 8) {
      if ((view.getUint32(at) & COMPRESSED_HIGH) === 0) continue;
      const type = image.header.header.compressionType;
      const what = `Cannot downgrade an image with ${type} compression type`;
      throw unsupported(image, `${what} and existing compressed clusters`);
    }
  }
}

/** Whether a cluster without an entry reads as zeroes. */
function isZeroBelow({ backing }: Qcow2Image, offset: number): boolean {
  return backing === undefined || offset >= backing.size;
}

async function expandActive(
  image: Qcow2Image,
  writer: Writer,
  tell: (bytes: number) => void,
): Promise<void> {
  const { geometry, l2, mapping } = image;
  const { clusterSize, l1Span } = geometry;
  const end = l2.l1.entries * l1Span;
  for (let at = 0; at < end; ) {
    if (l2.tableOffset(geometry.l1Index(at)) === 0) {
      at = (geometry.l1Index(at) + 1) * l1Span;
      continue;
    }
    const run = mapping.find(at, end - at);
    if (run === undefined) {
      await mapping.load(at);
      continue;
    }
    if (run.kind === "invalid") {
      const place = { offset: run.host, length: clusterSize };
      await image.corrupt(mapping.damage?.message ?? "invalid entry", place);
    }
    if (run.kind === "zero-plain" || run.kind === "zero-alloc") {
      await expandCluster(image, writer, at, run.kind);
      at += clusterSize;
    } else {
      at += run.length;
    }
    tell(at);
  }
}

async function expandCluster(
  image: Qcow2Image,
  writer: Writer,
  at: number,
  kind: "zero-plain" | "zero-alloc",
): Promise<void> {
  if (kind === "zero-alloc" || !isZeroBelow(image, at)) {
    await writer.write(at, new Uint8Array(insideDisk(image, at)));
    return;
  }
  const entries = new EntryChange(image);
  await entries.within(at, (now) => entries.unlink(at, now, "never"));
}

/** Bytes of a cluster that are inside the disk; behind its end, where VM state is, all of them. */
function insideDisk({ geometry, size }: Qcow2Image, at: number): number {
  return at < size ? Math.min(geometry.clusterSize, size - at) : geometry.clusterSize;
}

/**
 * Changes a table of snapshots where it is: all of them see the same content as before. The active disk does not refer to
 * it, or it has no zero clusters any more.
 */
async function expandTable(image: Qcow2Image, table: TreeTable): Promise<void> {
  const { geometry, refcounts, allocator, file, writeback } = image;
  const { clusterSize, l1Span } = geometry;
  const { view, index, offset } = table;
  const users = await refcounts.get(offset / clusterSize);
  const old: HostExtent[] = [];
  let isChanged = false;
  for (let at = 0; at < view.byteLength; at += 8) {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    if ((high & COMPRESSED_HIGH) !== 0 || (low & ZERO_LOW) === 0) continue;
    const before = entryOffset(high, low);
    if (before !== 0 && isValidHostOffset(before, geometry)) {
      old.push({ offset: before, length: clusterSize });
    }
    const guest = index * l1Span + (at / 8) * clusterSize;
    const host = isZeroBelow(image, guest) ? 0 : await zeroCluster(image, users);
    view.setUint32(at, highOf(host));
    view.setUint32(at + 4, lowOf(host));
    isChanged = true;
  }
  if (!isChanged) return;
  await writeback.flush();
  await file.write(offset, new Uint8Array(view.buffer), "inactive-l2");
  await file.flush();
  for (let user = 0; user < users; user += 1) {
    await allocator.release(old.map((extent) => ({ ...extent, discard: "snapshot" as const })));
  }
}

/** A host cluster of zeroes that so many refer to. */
async function zeroCluster(
  { allocator, refcounts, file, geometry }: Qcow2Image,
  users: number,
): Promise<number> {
  const { clusterSize } = geometry;
  const host = await allocator.allocate(1);
  await file.write(host, new Uint8Array(clusterSize));
  if (users > 1) {
    await allocator.exclusively(() => refcounts.change(host, clusterSize, users - 1));
  }
  return host;
}
