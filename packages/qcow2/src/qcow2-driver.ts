import {
  type AmendProgress,
  type BlockChild,
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  type CheckResult,
  type ChildPermissionsInput,
  completed,
  type DriverFlags,
  defaultChildPermissions,
  type ImageInfo,
  type PermissionSet,
  type PersistentBitmaps,
  type PreparedReopen,
  type ReopenChange,
  RequestFlag,
  type RequestOptions,
  Role,
  rejected,
  type TruncateOptions,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { StoredBitmaps } from "./bitmaps/stored-bitmaps.ts";
import { checkImage, type ImageCheckOptions } from "./check/check-image.ts";
import { repairDirty } from "./check/repair-dirty.ts";
import { CompressedWriter } from "./data/compressed-writer.ts";
import { Reader } from "./data/reader.ts";
import { blockStatus } from "./data/status.ts";
import { Writer } from "./data/writer.ts";
import { Zeroer } from "./data/zeroer.ts";
import { knownAutoclear } from "./format/feature-names.ts";
import type { SnapshotRecord } from "./format/snapshot-table.ts";
import { CacheCleaner } from "./image/cache-cleaner.ts";
import { formatInfo } from "./image/format-info.ts";
import type { Qcow2Image } from "./image/qcow2-image.ts";
import { amendImage } from "./operations/amend.ts";
import type { Qcow2AmendOptions } from "./operations/amend-options.ts";
import { makeEmpty } from "./operations/make-empty.ts";
import { reload } from "./operations/reload.ts";
import { prepareReopen } from "./operations/reopen.ts";
import { resize } from "./operations/resize.ts";
import { Snapshots } from "./operations/snapshots.ts";

/**
 * A qcow2 image as a disk.
 *
 * @see spec/qcow2.md
 */
export class Qcow2Driver implements BlockDriver {
  readonly driverName: string = "qcow2";
  readonly zeroes = "native";
  flags: DriverFlags;
  readonly limits: Partial<BlockLimits>;
  readonly #image: Qcow2Image;
  readonly #reader: Reader;
  readonly #writer: Writer;
  readonly #zeroer: Zeroer;
  readonly #compressed: CompressedWriter;
  readonly snapshots: Snapshots;
  readonly #cleaner: CacheCleaner;
  readonly #bitmaps: StoredBitmaps;
  /** The bits that nobody here keeps true were cleared, and the counts are right. */
  #isUpdated: boolean = false;
  #updating: Promise<void> | undefined;
  /** So they were, and no stored bitmap says what a change of the disk would make wrong. */
  #isClaimed: boolean = false;
  #claiming: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  /** The image was given up to another process. */
  #isInactive: boolean = false;

  /** @param cleanInterval - seconds after which tables that nobody uses are forgotten; 0 for never */
  constructor(image: Qcow2Image, snapshots: readonly SnapshotRecord[], cleanInterval = 0) {
    this.#image = image;
    const caches = [image.l2.cache, image.refcounts.blocks];
    this.#cleaner = new CacheCleaner(image.env, caches, cleanInterval);
    this.#bitmaps = new StoredBitmaps(image, {
      prepareUpdate: () => this.#prepareUpdate(),
      onStored: () => {
        this.#isClaimed = false;
      },
    });
    this.snapshots = new Snapshots(image, snapshots, {
      prepareUpdate: () => this.#prepareUpdate(),
      prepareApply: async () => {
        await this.#bitmaps.checkReplaceable();
        await this.#prepareChange();
      },
    });
    this.#reader = new Reader(image);
    this.#writer = new Writer(image, this.#reader);
    this.#zeroer = new Zeroer(image);
    this.#compressed = new CompressedWriter(image, this.#writer);
    const { geometry } = image;
    this.flags = flagsOf(image);
    this.limits = {
      requestAlignment: 1,
      pwriteZeroesAlignment: geometry.subclusterSize,
      pdiscardAlignment: geometry.clusterSize,
    };
  }

  get size(): number {
    return this.#image.size;
  }

  /** Images of version 2 hold none: storing is refused. */
  get persistentBitmaps(): PersistentBitmaps {
    return this.#bitmaps;
  }

  pread(offset: number, buffer: Uint8Array): Promise<void> {
    const { gate, readFailure } = this.#image;
    if (readFailure !== undefined) return rejected(readFailure);
    if (!gate.tryEnter()) return this.#inside(() => this.#reader.read(offset, buffer));
    return this.#leaving(this.#reader.read(offset, buffer));
  }

  pwrite(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    const { gate, writeFailure } = this.#image;
    if (writeFailure !== undefined) return rejected(writeFailure);
    const flags = options?.flags ?? 0;
    const isCompressed = (flags & RequestFlag.compressed) !== 0;
    if (isCompressed || !this.#isClaimed || !gate.tryEnter()) {
      return this.#changing(flags, () =>
        isCompressed ? this.#compressed.write(offset, buffer) : this.#writer.write(offset, buffer),
      );
    }
    return this.#leaving(this.#writer.write(offset, buffer));
  }

  pwriteZeroes(offset: number, length: number, options?: RequestOptions): Promise<void> {
    const flags = options?.flags ?? 0;
    const unmaps = (flags & RequestFlag.mayUnmap) !== 0;
    return this.#changing(flags, () => this.#zeroer.zero(offset, length, unmaps));
  }

  pdiscard(offset: number, length: number): Promise<void> {
    return this.#changing(0, () => this.#zeroer.discard(offset, length));
  }

  async truncate(size: number, options: TruncateOptions = {}): Promise<void> {
    await this.#bitmaps.checkResizable();
    await this.#prepareChange();
    const parts = { writer: this.#writer, zeroer: this.#zeroer };
    await this.#image.gate.alone(() => resize(this.#image, parts, size, options));
  }

  async makeEmpty(): Promise<void> {
    await this.#prepareChange();
    await this.#image.gate.alone(() => makeEmpty(this.#image));
  }

  /** A complete flush: the stages of write-back flush the files themselves. Waits for operations on the whole image. */
  flush(): Promise<void> {
    return this.#inside(() => this.#image.flush());
  }

  blockStatus(offset: number, length: number): Promise<BlockStatus> {
    const { readFailure } = this.#image;
    if (readFailure !== undefined) return rejected(readFailure);
    return this.#inside(() => blockStatus(this.#image, offset, length));
  }

  getInfo(): Promise<ImageInfo> {
    return this.#inside(async () => {
      const { geometry, isDirty } = this.#image;
      const { clusterSize, subclusterSize } = geometry;
      const formatSpecific = { type: "qcow2", data: await formatInfo(this.#image) };
      return { clusterSize, subclusterSize, isDirty, formatSpecific };
    });
  }

  /**
   * Changes what the image is: version, width of counts, size and so on.
   *
   * @param options - parsed by the amend schema
   * @throws BlockError as {@link amendImage}; `EROFS` the image is read-only
   */
  async amend(options: unknown, progress?: AmendProgress): Promise<void> {
    const given = options as Qcow2AmendOptions;
    if ((given.size ?? this.size) !== this.size) await this.#bitmaps.checkResizable();
    await this.#prepareUpdate();
    const parts = { writer: this.#writer, zeroer: this.#zeroer, snapshots: this.snapshots };
    try {
      await this.#image.gate.alone(() => amendImage(this.#image, parts, given, progress));
    } finally {
      this.flags = flagsOf(this.#image);
    }
  }

  /**
   * Checks the image and mends what `repair` allows, while requests wait.
   *
   * @param options - `onFinding` is told of each finding
   * @throws BlockError as {@link checkImage}; `ENOMEDIUM` the image was found to be damaged while it was in use
   */
  async check(options?: ImageCheckOptions): Promise<CheckResult> {
    const { gate, readFailure, readOnly } = this.#image;
    if (readFailure !== undefined) throw readFailure;
    const repairs = (options?.repair ?? "none") !== "none";
    if (repairs && !readOnly) await this.#clearUnknownBits();
    return await gate.alone(() => checkImage(this.#image, options));
  }

  allocatedSize(): Promise<number | undefined> {
    return this.#image.file.child.allocatedSize();
  }

  /** The data role of a file whose data is elsewhere does not count. */
  childPermissions(
    { name, role }: Pick<BlockChild, "name" | "role">,
    input: ChildPermissionsInput,
  ): PermissionSet {
    const isElsewhere = name === "file" && this.#image.hasDataFile;
    return defaultChildPermissions(isElsewhere ? role & ~Role.data : role, input);
  }

  drainBegin(): Promise<void> {
    this.#cleaner.pause();
    return completed;
  }

  drainEnd(): void {
    if (this.#closing === undefined) this.#cleaner.resume();
  }

  /** @throws BlockError as {@link prepareReopen} */
  prepareReopen(change: ReopenChange): Promise<PreparedReopen> {
    // Who can write now looks at the image as on opening.
    return prepareReopen(this.#image, this.#cleaner, change, () => this.#lookAgain());
  }

  /** Writes everything back; from here on nothing is written. */
  async inactivate(): Promise<void> {
    const { readOnly, gate } = this.#image;
    if (this.#isInactive || this.#closing !== undefined) return;
    if (!readOnly) {
      await gate.alone(async () => {
        await this.#image.flush();
        await this.#image.clean();
      });
    }
    this.#isInactive = true;
    this.#lookAgain();
    this.#bitmaps.forget();
  }

  /** Forgets everything and reads the image anew. @throws BlockError as {@link reload} */
  async activate(): Promise<void> {
    if (!this.#isInactive) return;
    await this.#image.gate.alone(() => reload(this.#image, this.snapshots));
    this.#isInactive = false;
    this.flags = flagsOf(this.#image);
  }

  /** Writes everything back. What fails is told; the image is closed all the same. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    const image = this.#image;
    this.#cleaner.pause();
    await image.gate.alone(async () => {
      try {
        const isWritten = !(image.readOnly || this.#isInactive);
        if (isWritten && image.writeFailure === undefined) await image.clean();
      } finally {
        image.shutDown();
      }
    });
  }

  async #inside<T>(work: () => Promise<T>): Promise<T> {
    const { gate } = this.#image;
    await gate.enter();
    try {
      // What the request waited for may have been the end.
      const { readFailure } = this.#image;
      if (readFailure !== undefined) throw readFailure;
      return await work();
    } finally {
      gate.leave();
    }
  }

  async #changing(flags: number, work: () => Promise<void>): Promise<void> {
    // What only copies data to where it shows already concerns no bitmap.
    const isUnchanged = (flags & RequestFlag.writeUnchanged) !== 0;
    await (isUnchanged ? this.#prepareUpdate() : this.#prepareChange());
    await this.#inside(work);
  }

  /**
   * Before anything is written: clears the bits of features that nobody here keeps true, and mends counts that are not.
   *
   * @throws BlockError `EROFS`, or why nothing can be written any more
   */
  async #prepareUpdate(): Promise<void> {
    const { writeFailure, readOnly, host } = this.#image;
    if (writeFailure !== undefined) throw writeFailure;
    const context = { node: host.nodeName };
    if (readOnly) throw new BlockError("EROFS", "the image is read-only", context);
    if (this.#isInactive) {
      throw new BlockError("EPERM", "the image was given up to another process", context);
    }
    if (this.#isUpdated) return;
    this.#updating ??= this.#update().finally(() => {
      this.#updating = undefined;
    });
    await this.#updating;
  }

  /** Before the disk changes. @throws BlockError as {@link #prepareUpdate} */
  async #prepareChange(): Promise<void> {
    await this.#prepareUpdate();
    if (this.#isClaimed) return;
    this.#claiming ??= this.#claim().finally(() => {
      this.#claiming = undefined;
    });
    await this.#claiming;
  }

  async #update(): Promise<void> {
    const image = this.#image;
    await this.#clearUnknownBits();
    if (image.hasStaleCounts) await image.gate.alone(() => repairDirty(image));
    this.#isUpdated = true;
  }

  async #claim(): Promise<void> {
    await this.#bitmaps.claim();
    this.#isClaimed = true;
  }

  #lookAgain(): void {
    this.#isUpdated = false;
    this.#isClaimed = false;
  }

  async #clearUnknownBits(): Promise<void> {
    const { header } = this.#image;
    const autoclear = knownAutoclear(header.header.autoclear);
    if (!autoclear.equals(header.header.autoclear)) await header.setFeatures({ autoclear });
  }

  #leaving(work: Promise<void>): Promise<void> {
    const { gate } = this.#image;
    if (work !== completed) return work.finally(() => gate.leave());
    gate.leave();
    return completed;
  }
}

/** Version 2 has no zero clusters: whether zeroing is cheap is not known before. */
function flagsOf({ header }: Qcow2Image): DriverFlags {
  return {
    read: 0,
    write: RequestFlag.writeUnchanged | RequestFlag.compressed,
    zeroes:
      header.header.version === 3
        ? RequestFlag.mayUnmap | RequestFlag.noFallback | RequestFlag.writeUnchanged
        : RequestFlag.writeUnchanged,
    truncateZero: true,
  };
}
