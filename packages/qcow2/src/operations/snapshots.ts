import type { SnapshotInfo, SnapshotStore } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { SNAPSHOTS_MAX } from "../format/constants.ts";
import { encodeSnapshots, type SnapshotRecord } from "../format/snapshot-table.ts";
import { registerMetadata } from "../image/open-image.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";
import { countTree, refreshCopied, releaseTree } from "./cluster-tree.ts";
import { growL1 } from "./grow-l1.ts";

const NS_PER_MS = 1_000_000;

/** What snapshots need of the driver. */
export interface SnapshotPreparations {
  /** Called before anything is written that leaves the disk as it is. */
  readonly prepareUpdate: () => Promise<void>;
  /** Called before the disk becomes another one; refuses where that cannot be. */
  readonly prepareApply: () => Promise<void>;
}

/**
 * The internal snapshots of an image. Each operation takes the image for itself, and takes effect when the header is
 * switched: what comes before can only leak, and so can what comes behind.
 *
 * @see spec/qcow2.md section 11
 */
export class Snapshots implements SnapshotStore {
  readonly #image: Qcow2Image;
  readonly #preparations: SnapshotPreparations;
  #records: readonly SnapshotRecord[];

  constructor(
    image: Qcow2Image,
    records: readonly SnapshotRecord[],
    preparations: SnapshotPreparations,
  ) {
    this.#image = image;
    this.#records = records;
    this.#preparations = preparations;
  }

  /** The snapshots as the image stores them. */
  get records(): readonly SnapshotRecord[] {
    return this.#records;
  }

  /** Takes what was read from the file anew. */
  adopt(records: readonly SnapshotRecord[]): void {
    this.#records = records;
  }

  /** Writes the table anew, with all that version 3 asks of it. Nobody else uses the image meanwhile. */
  rewrite(): Promise<void> {
    return this.#records.length === 0 ? Promise.resolve() : this.#store(this.#records);
  }

  list(): Promise<readonly SnapshotInfo[]> {
    return Promise.resolve(this.#records.map(infoOf));
  }

  /**
   * @throws BlockError `EFBIG` there are 65536; `ENOTSUP` external data file; `EINVAL` a count would not fit its width;
   *   `EEXIST` there is one of that name
   */
  create(snapshot: Omit<SnapshotInfo, "id">): Promise<SnapshotInfo> {
    return this.#alone(this.#preparations.prepareUpdate, async () => {
      const image = this.#image;
      if (this.#records.length >= SNAPSHOTS_MAX) {
        throw new BlockError("EFBIG", "the image has too many snapshots", { limit: SNAPSHOTS_MAX });
      }
      const { l1 } = image.l2;
      const content = l1.bytes.slice();
      const clusters = Math.max(1, image.geometry.clustersOf(content.length));
      const home = await image.allocator.allocate(clusters);
      const record: SnapshotRecord = {
        id: nextId(this.#records),
        name: snapshot.name,
        l1Offset: home,
        l1Size: l1.entries,
        diskSize: snapshot.diskSize,
        dateSeconds: Math.floor(snapshot.dateMs / 1000),
        dateNanoseconds: (snapshot.dateMs % 1000) * NS_PER_MS,
        vmClockNs: snapshot.vmClockNs,
        vmStateSize: snapshot.vmStateSize,
        icount: undefined,
        unknownExtra: new Uint8Array(0),
      };
      try {
        await image.file.write(home, content);
        await countTree(image, content);
      } catch (error) {
        image.allocator.abandon(home, clusters * image.geometry.clusterSize);
        throw error;
      }
      await refreshCopied(image);
      await image.writeback.flush();
      await this.#store([...this.#records, record]);
      return infoOf(record);
    });
  }

  /** @throws BlockError `ENOENT`; `EIO` its tables are damaged; `ENOTSUP`, also while the image holds bitmaps */
  apply(idOrName: string): Promise<void> {
    return this.#alone(this.#preparations.prepareApply, async () => {
      const image = this.#image;
      const { l2, header, allocator, geometry } = image;
      const record = this.#find(idOrName);
      await growL1(image, record.l1Size);
      const content = await this.#readL1(record);
      await countTree(image, content);
      const old = { offset: l2.l1.offset, bytes: l2.l1.bytes.slice() };
      const entries = Math.max(l2.l1.entries, record.l1Size);
      const table = new Uint8Array(entries * 8);
      table.set(content);
      // The snapshot has these tables as well: who dies before the marks are true must not believe them.
      for (let at = 0; at < content.length; at += 8) table[at] = (table[at] ?? 0) & 0x7f;
      const clusters = Math.max(1, geometry.clustersOf(table.length));
      const home = await allocator.allocate(clusters);
      await image.file.write(home, table);
      await image.writeback.flush();
      await header.update({ header: { l1Offset: home, l1Size: entries, size: record.diskSize } });
      l2.l1.replace(home, table);
      l2.cache.clear();
      registerMetadata(image, this.#records);
      image.host.resized();
      const length = geometry.clustersOf(old.bytes.length) * geometry.clusterSize;
      if (length > 0) {
        await allocator.release([{ offset: old.offset, length, discard: "snapshot" }]);
      }
      await releaseTree(image, old.bytes);
      await refreshCopied(image);
      await image.writeback.finish();
    });
  }

  /** @throws BlockError `ENOENT`; `EIO` its tables are damaged; `ENOTSUP` */
  delete(idOrName: string): Promise<void> {
    return this.#alone(this.#preparations.prepareUpdate, async () => {
      const image = this.#image;
      const record = this.#find(idOrName);
      const content = await this.#readL1(record);
      await this.#store(this.#records.filter((one) => one !== record));
      await releaseTree(image, content);
      const length = image.geometry.clustersOf(content.length) * image.geometry.clusterSize;
      if (length > 0) {
        const free = { offset: record.l1Offset, length, discard: "snapshot" } as const;
        await image.allocator.release([free]);
      }
      await refreshCopied(image);
      await image.writeback.finish();
    });
  }

  /** Runs `work` when all tables are in the file and none of their slices in memory. */
  async #alone<T>(prepare: () => Promise<void>, work: () => Promise<T>): Promise<T> {
    const { hasDataFile, gate, writeback, l2, host } = this.#image;
    if (hasDataFile) {
      const message = "images with an external data file have no snapshots";
      throw new BlockError("ENOTSUP", message, { node: host.nodeName });
    }
    await prepare();
    return gate.alone(async () => {
      await writeback.finish();
      l2.cache.dropClean();
      try {
        return await work();
      } finally {
        l2.cache.dropClean();
      }
    });
  }

  #find(idOrName: string): SnapshotRecord {
    const record =
      this.#records.find(({ id }) => id === idOrName) ??
      this.#records.find(({ name }) => name === idOrName);
    if (record !== undefined) return record;
    throw new BlockError("ENOENT", `Can't find snapshot '${idOrName}'`, {
      node: this.#image.host.nodeName,
      snapshot: idOrName,
    });
  }

  async #readL1({ l1Offset, l1Size }: SnapshotRecord): Promise<Uint8Array> {
    const content = new Uint8Array(l1Size * 8);
    if (content.length > 0) await this.#image.file.read(l1Offset, content);
    return content;
  }

  /** Writes a new table of snapshots and points the header to it. */
  async #store(records: readonly SnapshotRecord[]): Promise<void> {
    const { allocator, file, geometry, header, writeback, frees } = this.#image;
    const old = header.header.snapshotTableOffset;
    const oldLength = encodeSnapshots(this.#records).length;
    const bytes = encodeSnapshots(records);
    const clusters = geometry.clustersOf(bytes.length);
    const home = clusters === 0 ? 0 : await allocator.allocate(clusters);
    try {
      if (clusters > 0) await file.write(home, bytes);
      await writeback.flush();
    } catch (error) {
      if (clusters > 0) allocator.abandon(home, clusters * geometry.clusterSize);
      throw error;
    }
    await header.setSnapshots(records.length, home);
    this.#records = records;
    registerMetadata(this.#image, records);
    file.metadata.setExtents("snapshot-table", [{ offset: home, length: bytes.length }]);
    const length = geometry.clustersOf(oldLength) * geometry.clusterSize;
    if (length > 0) frees.addDurable([{ offset: old, length, discard: "snapshot" }]);
    await writeback.finish();
  }
}

function nextId(records: readonly SnapshotRecord[]): string {
  const numbers = records.map(({ id }) => Number.parseInt(id, 10)).filter(Number.isSafeInteger);
  return String(Math.max(0, ...numbers) + 1);
}

function infoOf(record: SnapshotRecord): SnapshotInfo {
  const { id, name, vmStateSize, dateSeconds, dateNanoseconds, vmClockNs, diskSize } = record;
  const dateMs = dateSeconds * 1000 + Math.floor(dateNanoseconds / NS_PER_MS);
  return { id, name, vmStateSize, dateMs, vmClockNs, diskSize };
}
