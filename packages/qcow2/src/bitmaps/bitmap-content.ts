import type { BitmapContent } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { divideDown, divideUp, isAligned, isSafeSize, readU32 } from "@blocklayer/offsets";
import type { BitmapEntry } from "../format/bitmap-directory.ts";
import { entryOffset } from "../format/l2-entry.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";

/** Bits 56 to 63 of an entry, in its upper half. */
const RESERVED_HIGH = 0xff000000;
/** Bits 1 to 8, in the lower half. */
const RESERVED_LOW = 0x1fe;
/** Bits without a cluster are all set. */
const ALL_ONES = 1;
/** Entries of a table that are read at a time. */
const CHUNK_ENTRIES = 8192;

/** Where the bits of one cluster's worth are. */
export type BitmapCluster = "zeroes" | "ones" | number;

/** A bitmap's table, read in parts. */
export class BitmapTable {
  readonly #image: Qcow2Image;
  readonly #entry: BitmapEntry;
  #first = 0;
  #chunk: Uint8Array = new Uint8Array(0);

  constructor(image: Qcow2Image, entry: BitmapEntry) {
    this.#image = image;
    this.#entry = entry;
  }

  /**
   * Returns where the bits of a cluster are: host offset, or what all of them are.
   *
   * @throws BlockError `EIO` the entry cannot be
   */
  async cluster(index: number): Promise<BitmapCluster> {
    const at = (index - this.#first) * 8;
    if (at < 0 || at + 8 > this.#chunk.length) {
      await this.#load(index);
      return await this.cluster(index);
    }
    const high = readU32(this.#chunk, at);
    const low = readU32(this.#chunk, at + 4);
    const offset = entryOffset(high, low);
    const hasOnes = (low & ALL_ONES) !== 0;
    const isPossible =
      (high & RESERVED_HIGH) === 0 &&
      (low & RESERVED_LOW) === 0 &&
      (offset === 0 || (!hasOnes && this.#isInside(offset)));
    if (!isPossible) {
      throw this.#damaged(`entry ${index} of the table of bitmap '${this.#entry.name}' is damaged`);
    }
    if (offset !== 0) return offset;
    return hasOnes ? "ones" : "zeroes";
  }

  #isInside(offset: number): boolean {
    const { geometry, file } = this.#image;
    return isSafeSize(offset) && isAligned(offset, geometry.clusterSize) && offset < file.size;
  }

  async #load(index: number): Promise<void> {
    const { tableOffset, tableSize, name } = this.#entry;
    const { file } = this.#image;
    const entries = Math.min(CHUNK_ENTRIES, tableSize - index);
    const chunk = new Uint8Array(entries * 8);
    const offset = tableOffset + index * 8;
    if (!isSafeSize(offset) || offset + chunk.length > file.size) {
      throw this.#damaged(`the table of bitmap '${name}' ends beyond the image file`);
    }
    await file.read(offset, chunk);
    this.#first = index;
    this.#chunk = chunk;
  }

  #damaged(message: string): BlockError {
    const { tableOffset, name } = this.#entry;
    const context = { node: this.#image.host.nodeName, bitmap: name, offset: tableOffset };
    return new BlockError("EIO", message, context);
  }
}

/** Bits that a bitmap has. */
export function bitsOf(diskSize: number, granularityBits: number): number {
  return divideUp(diskSize, 2 ** granularityBits);
}

/** Bytes of the serialised form: whole words of 64 bits. */
export function serializedLengthOf(bits: number): number {
  return divideUp(bits, 64) * 8;
}

/**
 * Clears the bits behind the last one.
 *
 * @param bytes - a part of the serialised form, from byte `position` on
 */
export function clearPadding(bytes: Uint8Array, position: number, bits: number): void {
  const end = divideDown(bits, 8) - position;
  if (end >= bytes.length) return;
  if (end >= 0) bytes[end] = (bytes[end] ?? 0) & (2 ** (bits % 8) - 1);
  bytes.fill(0, Math.max(0, end + 1));
}

/**
 * What the image holds of a bitmap, read as it is asked for. Of use until the set of bitmaps changes.
 *
 * Memory: 64 KiB of the table, and what is asked for.
 */
export class StoredContent implements BitmapContent {
  readonly serializedLength: number;
  readonly #image: Qcow2Image;
  readonly #table: BitmapTable;
  readonly #bits: number;

  constructor(image: Qcow2Image, entry: BitmapEntry) {
    this.#image = image;
    this.#table = new BitmapTable(image, entry);
    this.#bits = bitsOf(image.size, entry.granularityBits);
    this.serializedLength = serializedLengthOf(this.#bits);
  }

  /** @throws BlockError `EIO` the table is damaged, or the data ends beyond the file */
  async read(offset: number, length: number): Promise<Uint8Array | undefined> {
    const { clusterSize } = this.#image.geometry;
    const bytes = new Uint8Array(length);
    let hasBits = false;
    for (let done = 0; done < length; ) {
      const index = divideDown(offset + done, clusterSize);
      const inside = offset + done - index * clusterSize;
      const part = bytes.subarray(done, Math.min(length, done + clusterSize - inside));
      hasBits = (await this.#readPart(index, inside, part)) || hasBits;
      done += part.length;
    }
    clearPadding(bytes, offset, this.#bits);
    return hasBits ? bytes : undefined;
  }

  async #readPart(index: number, inside: number, part: Uint8Array): Promise<boolean> {
    const place = await this.#table.cluster(index);
    if (place === "zeroes") return false;
    if (place === "ones") part.fill(0xff);
    else await this.#readData(place + inside, part);
    return true;
  }

  async #readData(offset: number, part: Uint8Array): Promise<void> {
    const { file, host } = this.#image;
    if (offset + part.length > file.size) {
      const message = "the data of a bitmap ends beyond the image file";
      throw new BlockError("EIO", message, { node: host.nodeName, offset });
    }
    await file.read(offset, part);
  }
}
