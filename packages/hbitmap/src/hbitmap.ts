import { assert } from "@blocklayer/errors";
import { alignUp, clampLength, divideUp, isAligned, MAX_LENGTH } from "@blocklayer/offsets";
import { checkGranularity, checkInteger, checkRoom, checkSize } from "./arguments.ts";
import { BitTree, serialBytes } from "./bit-tree.ts";

/** A run of dirty bytes, see {@link HBitmap.nextDirtyArea}. */
export interface DirtyArea {
  /** Bytes from the start of the bitmap. */
  readonly offset: number;
  /** Bytes, 1 or more. */
  readonly length: number;
}

/** The state at an offset and how far it reaches, see {@link HBitmap.status}. */
export interface RunStatus {
  readonly dirty: boolean;
  /** Bytes, 1 or more. */
  readonly length: number;
}

const SERIAL_WORD_BITS = 64;
const SERIAL_WORD_BYTES = 8;

/**
 * Records which bytes of a disk are dirty, one bit for each group of `granularity` bytes, and finds the
 * next dirty or clean byte in a few steps however large the disk is.
 *
 * All positions and lengths are in bytes. A group is dirty as a whole: setting one byte of it sets them
 * all, and `reset` takes whole groups only, so that a dirty byte is never lost. The last group may reach
 * beyond `size`; a range may name those bytes, and `count` counts them, but no query returns them.
 *
 * Ranges that do not fit and arguments that are not safe integers are programming mistakes: RangeError.
 * From the first `deserialize…` to the end of `deserializeFinish` the bitmap answers no question; using it then is an
 * assertion failure. `resetAll` and `setAll` abandon an unfinished load.
 *
 * @see spec/hbitmap.md
 */
export class HBitmap {
  /** Bytes of one group, a power of two. */
  readonly granularity: number;
  #size: number;
  #isLoading = false;
  readonly #tree: BitTree;
  /** 1 / granularity, exact, because multiplying is four times as fast as dividing. */
  readonly #groupsPerByte: number;
  /** Where the last group ends, in bytes; `size` or above. */
  #end: number;

  /**
   * Makes a clean bitmap.
   *
   * @param size - bytes it covers, 0 or more
   * @param granularity - bytes a bit stands for: a power of two from 1 to 2^46
   * @throws RangeError an argument is out of its range, or `size / granularity` is more than 2^36 bits
   */
  constructor(size: number, granularity: number) {
    checkSize(size);
    checkGranularity(granularity);
    this.granularity = granularity;
    this.#groupsPerByte = 1 / granularity;
    this.#size = size;
    this.#end = alignUp(size, granularity);
    this.#tree = new BitTree(divideUp(size, granularity));
  }

  /**
   * Returns a new bitmap that is dirty where `a` or `b` is.
   *
   * @param granularity - bytes, of the result; that of `a` by default
   * @throws RangeError the sizes differ
   */
  static merged(a: HBitmap, b: HBitmap, granularity: number = a.granularity): HBitmap {
    const result = a.withGranularity(granularity);
    result.merge(b);
    return result;
  }

  /** Bytes covered; changed by {@link truncate}. */
  get size(): number {
    return this.#size;
  }

  /** Bytes of all dirty groups; the last group counts in full, so this may exceed `size`. */
  get count(): number {
    return this.#bits.population * this.granularity;
  }

  /** Whether nothing is dirty. */
  get isEmpty(): boolean {
    return this.#bits.population === 0;
  }

  /** Bytes of memory in the arrays of bits. */
  get memoryBytes(): number {
    return this.#tree.memoryBytes;
  }

  /**
   * Makes every group that holds a byte of `[offset, offset + length)` dirty.
   *
   * @returns whether any of them was clean
   * @throws RangeError the range reaches beyond the last group
   */
  set(offset: number, length: number): boolean {
    this.#checkRange(offset, length);
    const bits = this.#bits;
    if (length === 0) return false;
    const first = this.#bitOf(offset);
    const last = this.#bitOf(offset + length - 1);
    return first === last ? bits.setOne(first) : bits.set(first, last);
  }

  /**
   * Makes the groups of `[offset, offset + length)` clean.
   *
   * @param offset - bytes, a multiple of the granularity
   * @param length - bytes, a multiple of the granularity unless the range ends at `size`
   * @returns whether any of them was dirty
   * @throws RangeError the range reaches beyond the last group, or covers a group in part
   */
  reset(offset: number, length: number): boolean {
    this.#checkRange(offset, length);
    const bits = this.#bits;
    if (length === 0) return false;
    const isWhole = isAligned(length, this.granularity) || offset + length === this.#size;
    if (!isAligned(offset, this.granularity) || !isWhole) {
      throw new RangeError(
        `reset of ${length} bytes at ${offset} would clean part of a group of ${this.granularity} bytes`,
      );
    }
    return bits.clear(this.#bitOf(offset), this.#bitOf(offset + length - 1));
  }

  /** Makes everything clean. */
  resetAll(): void {
    this.#tree.clearAll();
    this.#isLoading = false;
  }

  /** Makes everything dirty. */
  setAll(): void {
    this.resetAll();
    this.set(0, this.#size);
  }

  /**
   * Returns whether the group that holds `offset` is dirty.
   *
   * @throws RangeError `offset` lies beyond the last group
   */
  get(offset: number): boolean {
    this.#checkRange(offset, 1);
    return this.#bits.has(this.#bitOf(offset));
  }

  /**
   * Returns the first dirty byte of `[offset, offset + length)`, or -1.
   *
   * @param length - bytes, cut at `size`; all the rest by default
   */
  nextDirty(offset: number, length: number = MAX_LENGTH): number {
    const end = this.#clippedEnd(offset, length);
    if (end === offset) return -1;
    const bit = this.#bits.nextSet(this.#bitOf(offset));
    const found = Math.max(bit * this.granularity, offset);
    return bit === -1 || found >= end ? -1 : found;
  }

  /**
   * Returns the first clean byte of `[offset, offset + length)`, or -1.
   *
   * @param length - bytes, cut at `size`; all the rest by default
   */
  nextZero(offset: number, length: number = MAX_LENGTH): number {
    const end = this.#clippedEnd(offset, length);
    if (end === offset) return -1;
    const bit = this.#bits.nextClear(this.#bitOf(offset), this.#bitOf(end - 1));
    return bit === -1 ? -1 : Math.max(bit * this.granularity, offset);
  }

  /**
   * Returns the first run of dirty bytes in `[start, end)`, cut at `end` and after `max` bytes.
   *
   * @param start - bytes
   * @param end - bytes, cut at `size`; `size` by default
   * @param max - bytes, 1 or more; no limit by default
   * @returns nothing when all of the range is clean
   */
  nextDirtyArea(
    start: number,
    end: number = this.#size,
    max: number = MAX_LENGTH,
  ): DirtyArea | undefined {
    checkInteger(end, "end");
    checkInteger(max, "limit");
    if (max === 0) throw new RangeError("limit 0 leaves no room for a dirty area");
    const limit = Math.min(end, this.#size);
    const offset = this.nextDirty(start, Math.max(0, limit - start));
    if (offset === -1) return undefined;
    const room = Math.min(max, limit - offset);
    const zero = this.nextZero(offset, room);
    return { offset, length: zero === -1 ? room : zero - offset };
  }

  /**
   * Returns whether `offset` is dirty and how many bytes from there are the same, at most `length`.
   *
   * Differs: the reference at 7.2 calls a run clean that starts dirty and ends inside the range.
   *
   * @throws RangeError `length` is 0, or the range reaches beyond `size`
   */
  status(offset: number, length: number): RunStatus {
    this.#checkRange(offset, length);
    if (length === 0 || length > this.#size - offset) throw this.#outside(offset, length);
    const dirty = this.get(offset);
    const change = dirty ? this.nextZero(offset, length) : this.nextDirty(offset, length);
    return { dirty, length: change === -1 ? length : change - offset };
  }

  /**
   * Returns the bytes of the dirty groups that hold a byte of `[startOffset, endOffset)`, whole groups as
   * in {@link count}.
   *
   * @param endOffset - bytes, cut at `size`
   */
  countBetween(startOffset: number, endOffset: number): number {
    checkInteger(startOffset, "offset");
    checkInteger(endOffset, "end");
    const bits = this.#bits;
    const end = Math.min(endOffset, this.#size);
    if (startOffset >= end) return 0;
    return bits.countBetween(this.#bitOf(startOffset), this.#bitOf(end - 1)) * this.granularity;
  }

  /**
   * Makes dirty what is dirty in `other`, which may have another granularity and may be this bitmap.
   *
   * Coarse groups of `other` become all the finer ones they cover; fine groups make the coarser one dirty
   * that holds them.
   *
   * @throws RangeError the sizes differ
   */
  merge(other: HBitmap): void {
    if (other.#size !== this.#size) {
      throw new RangeError(`a bitmap of ${other.#size} bytes does not fit one of ${this.#size}`);
    }
    const mine = this.#bits;
    const theirs = other.#bits;
    if (other === this) return;
    if (other.granularity === this.granularity) {
      mine.or(theirs);
      return;
    }
    let area = other.nextDirtyArea(0);
    while (area !== undefined) {
      this.set(area.offset, area.length);
      // What shares the last group of this bitmap is dirty already.
      const reached = alignUp(area.offset + area.length, this.granularity);
      area = other.nextDirtyArea(Math.min(reached, this.#size));
    }
  }

  /** Returns an independent copy. */
  clone(): HBitmap {
    const copy = new HBitmap(this.#size, this.granularity);
    copy.#tree.copyFrom(this.#bits);
    return copy;
  }

  /**
   * Returns an independent copy with another granularity; never less dirty than this one.
   *
   * @param granularity - bytes, as in the constructor
   */
  withGranularity(granularity: number): HBitmap {
    if (granularity === this.granularity) return this.clone();
    const copy = new HBitmap(this.#size, granularity);
    copy.merge(this);
    return copy;
  }

  /**
   * Changes `size`: bytes cut off are forgotten, new groups are clean.
   *
   * A last group that covered its bytes in part keeps its bit; after growing it covers more bytes. Costs a
   * copy of the map when it is cut, or when it has outgrown its memory (a sixteenth is kept to spare).
   *
   * @param size - bytes
   * @throws RangeError as the constructor; the bitmap is as it was
   */
  truncate(size: number): void {
    checkSize(size);
    this.#bits.resize(divideUp(size, this.granularity));
    this.#size = size;
    this.#end = alignUp(size, this.granularity);
  }

  /** What chunks of the serialised form are aligned to: 64 groups, in bytes of the disk. */
  get serializationAlign(): number {
    return this.granularity * SERIAL_WORD_BITS;
  }

  /**
   * Returns the serialised bytes of the chunk `[offset, offset + length)`: 8 for each begun 64 groups.
   *
   * @throws RangeError the chunk is outside, or not aligned to {@link serializationAlign}; its end may be
   * unaligned where the bitmap ends
   */
  serializationSize(offset: number, length: number): number {
    this.#checkChunk(offset, length);
    if (length === 0) return 0;
    return serialBytes(this.#bitOf(offset), this.#bitOf(offset + length - 1));
  }

  /**
   * Returns the chunk `[offset, offset + length)` as bytes: group n of the chunk is bit n % 8 of byte
   * floor(n / 8), padded with zeroes to a multiple of 8 bytes. The same on every machine.
   *
   * @param into - where to put the bytes; a fresh array by default. The part that was filled is returned
   * @throws RangeError as {@link serializationSize}, or `into` is too small
   */
  serializePart(offset: number, length: number, into?: Uint8Array): Uint8Array {
    const needed = this.serializationSize(offset, length);
    const bits = this.#bits;
    const target = into ?? new Uint8Array(needed);
    checkRoom(target, needed);
    if (length > 0) {
      bits.storeBytes(target, this.#bitOf(offset), this.#bitOf(offset + length - 1));
    }
    return target.length === needed ? target : target.subarray(0, needed);
  }

  /**
   * Returns the whole bitmap as bytes, at least 8: what the reference takes the SHA-256 of.
   */
  bottomBytes(): Uint8Array {
    const bytes = new Uint8Array(
      Math.max(SERIAL_WORD_BYTES, this.serializationSize(0, this.#size)),
    );
    this.serializePart(0, this.#size, bytes);
    return bytes;
  }

  /**
   * Replaces the chunk `[offset, offset + length)` by what {@link serializePart} returned for it.
   *
   * @param bytes - the chunk; what lies behind it is ignored
   * @param finish - whether to {@link deserializeFinish} afterwards
   * @throws RangeError as {@link serializationSize}, or `bytes` is too short
   */
  deserializePart(bytes: Uint8Array, offset: number, length: number, finish = false): void {
    checkRoom(bytes, this.serializationSize(offset, length));
    if (length > 0) {
      this.#isLoading = true;
      this.#tree.loadBytes(bytes, this.#bitOf(offset), this.#bitOf(offset + length - 1));
    }
    if (finish) this.deserializeFinish();
  }

  /** Makes the chunk `[offset, offset + length)` clean, as {@link deserializePart} of zeroes does. */
  deserializeZeroes(offset: number, length: number, finish = false): void {
    this.#loadUniform(false, offset, length, finish);
  }

  /** Makes the chunk `[offset, offset + length)` dirty, as {@link deserializePart} of ones does. */
  deserializeOnes(offset: number, length: number, finish = false): void {
    this.#loadUniform(true, offset, length, finish);
  }

  /**
   * Ends loading: the bitmap answers again.
   *
   * Differs: padding bits behind the end that were loaded as ones are cleared; the reference at 7.2 keeps them.
   */
  deserializeFinish(): void {
    this.#tree.finishLoading();
    this.#isLoading = false;
  }

  /**
   * Checks the inner structure, in a time proportional to the size; for tests and simulators.
   *
   * @throws Error named `AssertionError`
   */
  assertConsistent(): void {
    const bits = this.#bits;
    assert(bits.bits === divideUp(this.#size, this.granularity), "the bits do not match the size");
    bits.assertConsistent();
  }

  /** The tree, for everything that depends on all of it being loaded. */
  get #bits(): BitTree {
    assert(!this.#isLoading, "the bitmap is used before deserializeFinish");
    return this.#tree;
  }

  #bitOf(offset: number): number {
    return Math.floor(offset * this.#groupsPerByte);
  }

  #checkRange(offset: number, length: number): void {
    checkInteger(offset, "offset");
    checkInteger(length, "length");
    // By subtraction, because the sum may not be a safe integer.
    if (length > 0 && length > this.#end - offset) throw this.#outside(offset, length);
  }

  #clippedEnd(offset: number, length: number): number {
    checkInteger(offset, "offset");
    checkInteger(length, "length");
    return offset + clampLength(offset, length, this.#size);
  }

  #outside(offset: number, length: number): RangeError {
    return new RangeError(
      `range of ${length} bytes at ${offset} is outside of a bitmap of ${this.#size} bytes`,
    );
  }

  #checkChunk(offset: number, length: number): void {
    this.#checkRange(offset, length);
    if (length === 0) return;
    const align = this.serializationAlign;
    const isLast = this.#bitOf(offset + length - 1) === this.#tree.bits - 1;
    if (isAligned(offset, align) && (isLast || isAligned(length, align))) return;
    throw new RangeError(`chunk of ${length} bytes at ${offset} is not aligned to ${align} bytes`);
  }

  #loadUniform(isSet: boolean, offset: number, length: number, finish: boolean): void {
    this.#checkChunk(offset, length);
    if (length > 0) {
      this.#isLoading = true;
      this.#tree.loadUniform(isSet, this.#bitOf(offset), this.#bitOf(offset + length - 1));
    }
    if (finish) this.deserializeFinish();
  }
}
