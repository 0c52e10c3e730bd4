import {
  type BitmapContent,
  completed,
  type LogStore,
  type PersistentBitmaps,
  type StoredBitmap,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { type BitmapEntry, encodeBitmapDirectory } from "../format/bitmap-directory.ts";
import { Mutex } from "../image/mutex.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";
import { StoredContent } from "./bitmap-content.ts";
import { freeBitmaps } from "./bitmap-frees.ts";
import { type BitmapShape, checkSet, checkShape, checkVersion } from "./bitmap-rules.ts";
import { BitmapWriter } from "./bitmap-writer.ts";
import { setAutoclear, switchBitmaps } from "./bitmaps-switch.ts";
import {
  markInPlace,
  readDirectory,
  type StoredDirectory,
  validExtension,
} from "./stored-directory.ts";

/** What the bitmaps of an image need of its driver. */
export interface StoredBitmapsOptions {
  /** Called before anything is written that changes nothing of the disk. */
  readonly prepareUpdate: () => Promise<void>;
  /** The image holds other bitmaps: they are to be claimed again before the disk changes. */
  readonly onStored: () => void;
}

/**
 * The persistent bitmaps of an image.
 *
 * A bitmap that records must not stay valid in the image while the disk changes. Whoever keeps bitmaps in memory marks
 * them in use before the first write; what is not marked when the first write arrives is kept by nobody, and the driver
 * marks it itself ({@link claim}): it is inconsistent from then on. Bitmaps that do not record stay valid, since no
 * write concerns them. So the autoclear bit may stay set whoever writes here; it is cleared where the directory cannot
 * be understood.
 *
 * Differs: marking leaves the autoclear bit set, so that a crash loses nothing.
 *
 * @see docs/decisions/0005-qcow2-bitmaps.md; spec/qcow2.md section 16; spec/dirty-bitmap.md section 8
 */
export class StoredBitmaps implements PersistentBitmaps {
  readonly owner = "unknown";
  readonly #image: Qcow2Image;
  readonly #options: StoredBitmapsOptions;
  /** Held by who uses the directory. */
  readonly #mutex: Mutex;
  /** Names of bitmaps that were marked by who keeps them in memory. */
  readonly #kept = new Set<string>();

  constructor(image: Qcow2Image, options: StoredBitmapsOptions) {
    this.#image = image;
    this.#options = options;
    this.#mutex = new Mutex(image.env, "qcow2 bitmaps");
  }

  /** @throws BlockError `EINVAL` the directory is damaged; whatever reading reports */
  list(): Promise<readonly StoredBitmap[]> {
    return this.#mutex.run(async () => {
      const { entries } = await readDirectory(this.#image);
      return entries.map(({ name, granularityBits, auto, inUse }) => ({
        name,
        granularity: 2 ** granularityBits,
        size: this.#image.size,
        enabled: auto,
        inUse,
      }));
    });
  }

  /** @throws BlockError `ENOENT`; `EINVAL` the directory is damaged. The content: `EIO` it is damaged */
  load(name: string): Promise<BitmapContent> {
    return this.#mutex.run(async () => {
      const { entries } = await readDirectory(this.#image);
      const entry = entries.find((one) => one.name === name);
      if (entry !== undefined) return new StoredContent(this.#image, entry);
      const context = { node: this.#image.host.nodeName, bitmap: name };
      throw new BlockError("ENOENT", `Dirty bitmap '${name}' not found`, context);
    });
  }

  /**
   * @throws BlockError `ENOTSUP` version 2; `EEXIST` there is one of that name; `EINVAL` a name, granularity or size that
   *   cannot be; `EFBIG` the bitmap would be too large, or is one too many
   */
  canStore(bitmap: BitmapShape): Promise<void> {
    return this.#mutex.run(async () => {
      checkVersion(this.#image);
      checkShape(this.#image, bitmap);
      const { entries } = await readDirectory(this.#image);
      checkSet(this.#image, [...entries.map(({ name }) => name), bitmap.name]);
    });
  }

  /**
   * Writes all content to new clusters, switches the header to a new directory, and frees what the old one referred to.
   *
   * Bitmaps that are given as `inUse` keep the clusters that they have; their content is not asked for.
   *
   * @throws BlockError as {@link canStore}; `EROFS`; whatever writing reports. The image holds the old set or the new one,
   *   and what was written for nothing is given back. When writing the header fails, nothing can be written any more
   */
  store(bitmaps: readonly (StoredBitmap & { readonly content: BitmapContent })[]): Promise<void> {
    return this.#mutex.run(async () => {
      if (bitmaps.length > 0) checkVersion(this.#image);
      for (const { inUse, ...bitmap } of bitmaps) if (!inUse) checkShape(this.#image, bitmap);
      checkSet(
        this.#image,
        bitmaps.map(({ name }) => name),
      );
      const old = await readDirectory(this.#image);
      if (bitmaps.length === 0 && old.entries.length === 0) return;
      await this.#options.prepareUpdate();
      await this.#replace(old, async (writer) => {
        const entries: BitmapEntry[] = [];
        for (const bitmap of bitmaps) entries.push(await this.#write(writer, old, bitmap));
        return entries;
      });
    });
  }

  /** @throws BlockError `EROFS`; whatever writing reports: the image holds it, or does not */
  remove(name: string): Promise<void> {
    return this.#mutex.run(async () => {
      const old = await readDirectory(this.#image);
      const rest = old.entries.filter((entry) => entry.name !== name);
      if (rest.length === old.entries.length) return;
      await this.#options.prepareUpdate();
      await this.#replace(old, () => Promise.resolve(rest));
    });
  }

  /** One write and one flush; none when all of them are marked. @throws BlockError `EROFS`; whatever writing reports */
  markInUse(names: readonly string[]): Promise<void> {
    return this.#mutex.run(async () => {
      const directory = await readDirectory(this.#image);
      const meant = new Set(names);
      const valid = directory.entries.filter(({ name, inUse }) => !inUse && meant.has(name));
      if (valid.length === 0) return;
      await this.#options.prepareUpdate();
      await markInPlace(this.#image, directory, ({ name }) => meant.has(name));
      for (const { name } of valid) this.#kept.add(name);
    });
  }

  /**
   * Before the first change of the disk after opening and after storing: marks as in use the bitmaps that record and
   * are not marked, since nobody seems to keep them.
   */
  claim(): Promise<void> {
    return this.#mutex.run(async () => {
      if (validExtension(this.#image) === undefined) return;
      const directory = await this.#readOrDisown();
      await markInPlace(this.#image, directory, ({ auto }) => auto);
    });
  }

  /**
   * Asks whether the disk may become longer or shorter: all stored bitmaps have to be kept in memory.
   *
   * @throws BlockError `ENOTSUP` one is not
   * @see spec/dirty-bitmap.md section 8.7
   */
  checkResizable(): Promise<void> {
    return this.#mutex.run(async () => {
      const { entries } = await readDirectory(this.#image);
      const strange = entries.find((entry) => !(entry.inUse && this.#kept.has(entry.name)));
      if (strange === undefined) return;
      const { name, inUse } = strange;
      const message = inUse
        ? `Bitmap '${name}' is inconsistent and cannot be used`
        : `Bitmap '${name}' is stored in the image and not loaded: the image cannot be resized`;
      const context = { node: this.#image.host.nodeName, operation: "truncate", bitmap: name };
      throw new BlockError("ENOTSUP", message, context);
    });
  }

  /**
   * Asks whether the disk may be replaced by another one, as by applying a snapshot: nothing records that.
   *
   * @throws BlockError `ENOTSUP` the image has bitmaps
   */
  checkReplaceable(): Promise<void> {
    return this.#mutex.run(async () => {
      const { entries } = await readDirectory(this.#image);
      if (entries.length === 0) return;
      const context = { node: this.#image.host.nodeName, bitmap: entries[0]?.name };
      throw new BlockError("ENOTSUP", "Device has active dirty bitmaps", context);
    });
  }

  /** Another process may have the image from here on. */
  forget(): void {
    this.#kept.clear();
  }

  /** There is none. */
  log(): Promise<LogStore | undefined> {
    return Promise.resolve(undefined);
  }

  /** @throws BlockError `ENOTSUP`, always */
  createLog(): Promise<LogStore> {
    return Promise.reject(this.#noOwner("qcow2 images hold no write-intent log"));
  }

  /** @throws BlockError `ENOTSUP`, always */
  setOwner(): Promise<void> {
    return Promise.reject(this.#noOwner("qcow2 images hold no owner mark"));
  }

  /** There is none to clear. */
  clearOwner(): Promise<void> {
    return completed;
  }

  /** One that is in use stays where it is. */
  async #write(
    writer: BitmapWriter,
    old: StoredDirectory,
    bitmap: StoredBitmap & { readonly content: BitmapContent },
  ): Promise<BitmapEntry> {
    const { name, inUse, enabled: auto, content } = bitmap;
    const existing = old.entries.find((entry) => entry.name === name);
    if (inUse && existing !== undefined) return { ...existing, inUse };
    const granularityBits = checkShape(this.#image, bitmap);
    return await writer.write({ name, granularityBits, inUse, auto }, inUse ? undefined : content);
  }

  async #replace(
    old: StoredDirectory,
    make: (writer: BitmapWriter) => Promise<readonly BitmapEntry[]>,
  ): Promise<void> {
    const writer = new BitmapWriter(this.#image);
    let entries: readonly BitmapEntry[];
    try {
      entries = await make(writer);
      const bytes = encodeBitmapDirectory(entries);
      const offset = bytes.length === 0 ? 0 : await writer.writeDirectory(bytes);
      await this.#image.gate.alone(() => this.#switch(writer, entries, offset, bytes.length));
    } finally {
      writer.abandon();
    }
    const stays = new Set(entries.map(({ tableOffset }) => tableOffset));
    const gone = old.entries.filter(({ tableOffset }) => !stays.has(tableOffset));
    await freeBitmaps(this.#image, gone, { offset: old.offset, length: old.bytes.length });
    await this.#image.writeback.finish();
  }

  /** Lets the header point to a new directory, when everything that it leads to is stable. */
  async #switch(
    writer: BitmapWriter,
    entries: readonly BitmapEntry[],
    directoryOffset: number,
    directorySize: number,
  ): Promise<void> {
    const { file, header, writeback } = this.#image;
    await writeback.flush();
    const extension =
      entries.length === 0 ? undefined : { count: entries.length, directoryOffset, directorySize };
    try {
      await switchBitmaps(file, header, extension);
    } catch (error) {
      // Once the header may point to it, it is not given back.
      if (this.#image.writeFailure !== undefined) writer.keep();
      throw error;
    }
    writer.keep();
    file.metadata.setExtents("bitmap-directory", [
      { offset: directoryOffset, length: directorySize },
    ]);
    for (const name of this.#kept) {
      if (!entries.some((entry) => entry.name === name && entry.inUse)) this.#kept.delete(name);
    }
    this.#options.onStored();
  }

  /** A directory that cannot be understood cannot be kept true: the bit is cleared, as a program without bitmaps does. */
  async #readOrDisown(): Promise<StoredDirectory> {
    try {
      return await readDirectory(this.#image);
    } catch (error) {
      if (!(error instanceof BlockError) || error.code !== "EINVAL") throw error;
      const { header, host, file } = this.#image;
      host.warn(`the bitmaps of the image are dropped: ${error.message}`);
      await setAutoclear(header, false);
      file.metadata.setExtents("bitmap-directory", []);
      return { entries: [], bytes: new Uint8Array(0), offset: 0 };
    }
  }

  #noOwner(message: string): BlockError {
    return new BlockError("ENOTSUP", message, { node: this.#image.host.nodeName });
  }
}
