import { assert } from "@blocklayer/errors";
import { readU32LE, writeU32LE } from "@blocklayer/offsets";
import {
  clearBits,
  lowestBit,
  maskFrom,
  maskThrough,
  popCount,
  setBits,
  WORD_BITS,
  WORD_SHIFT,
  wordAt,
  wordOf,
} from "./words.ts";

/*
 * A set of bit numbers below `bits`, in levels of 32-bit words:
 *
 *   levels[0]      the bits themselves
 *   levels[k + 1]  bit n is set if and only if word n of levels[k] is not 0
 *   the last level is a single word
 *
 * So the next set bit is found by climbing until a word has something to the right and descending along
 * lowest bits: at most eight levels either way. Everything at and behind bit number `bits` is zero (only
 * between `loadBytes` or `loadUniform` and `finishLoading` it may not be). The bottom has an even number of
 * words, because the serialised form counts in words of 64 bits.
 */

/** The most bits a tree may have: 2^31 words in one array (8 GiB), so that word numbers fit 31 bits. */
export const MAX_BITS: number = 2 ** 36;

const SERIAL_WORD_BITS = 64;
const HALF_BYTES = 4;

export class BitTree {
  #bits: number;
  #population = 0;
  #levels: Uint32Array[];
  #bottom: Uint32Array;

  /** @throws RangeError more than {@link MAX_BITS} */
  constructor(bits: number) {
    checkBits(bits);
    this.#bits = bits;
    this.#levels = allocateLevels(wordsFor(bits));
    this.#bottom = bottomOf(this.#levels);
  }

  /** How many bit numbers there are. */
  get bits(): number {
    return this.#bits;
  }

  /** How many bits are set. */
  get population(): number {
    return this.#population;
  }

  get memoryBytes(): number {
    return this.#levels.reduce((total, words) => total + words.byteLength, 0);
  }

  /** Takes over the bits of `other`, a tree with as many bits. */
  copyFrom(other: BitTree): void {
    this.#bottom.set(other.#bottom.subarray(0, this.#bottom.length));
    this.#population = other.#population;
    this.#summarise();
  }

  has(bit: number): boolean {
    const index = wordOf(bit);
    return ((wordAt(this.#bottom, index) >>> (bit - index * WORD_BITS)) & 1) === 1;
  }

  /** Sets the bits `first` to `last`, both included; returns whether any of them was clear. */
  set(first: number, last: number): boolean {
    const from = wordOf(first);
    const to = wordOf(last);
    if (from === to) return this.#setInWord(from, maskFrom(first, from) & maskThrough(last, to));
    const added = setBits(this.#bottom, first, last);
    if (added === 0) return false;
    this.#population += added;
    this.#raiseRange(from, to);
    return true;
  }

  /** Sets one bit, which is what most writes mark; returns whether it was clear. */
  setOne(bit: number): boolean {
    const index = wordOf(bit);
    const before = wordAt(this.#bottom, index);
    const mask = 1 << bit;
    if ((before & mask) !== 0) return false;
    this.#bottom[index] = before | mask;
    this.#population += 1;
    if (before === 0) this.#raise(index);
    return true;
  }

  /** Clears the bits `first` to `last`, both included; returns whether any of them was set. */
  clear(first: number, last: number): boolean {
    const from = wordOf(first);
    const to = wordOf(last);
    if (from === to) return this.#clearInWord(from, maskFrom(first, from) & maskThrough(last, to));
    const removed = clearBits(this.#bottom, first, last);
    if (removed === 0) return false;
    this.#population -= removed;
    this.#lowerRange(from, to);
    return true;
  }

  clearAll(): void {
    for (const words of this.#levels) words.fill(0);
    this.#population = 0;
  }

  /** Sets every bit that is set in `other`, a different tree with as many bits. */
  or(other: BitTree): void {
    const theirs = other.#bottom;
    for (let index = other.#nextWord(0); index !== -1; index = other.#nextWord(index + 1)) {
      this.#setInWord(index, wordAt(theirs, index));
    }
  }

  /** Returns the lowest set bit that is not below `from`, or -1. */
  nextSet(from: number): number {
    if (from >= this.#bits) return -1;
    const index = wordOf(from);
    const word = wordAt(this.#bottom, index) & maskFrom(from, index);
    return word === 0 ? this.#nextSetBehind(index) : index * WORD_BITS + lowestBit(word);
  }

  /** Returns the lowest clear bit that is not below `from` and not above `last`, or -1. */
  nextClear(from: number, last: number): number {
    const end = wordOf(last);
    let index = wordOf(from);
    let word = ~wordAt(this.#bottom, index) & maskFrom(from, index);
    while (word === 0) {
      index++;
      if (index > end) return -1;
      word = ~wordAt(this.#bottom, index);
    }
    const bit = index * WORD_BITS + lowestBit(word);
    return bit <= last ? bit : -1;
  }

  /** Returns how many of the bits `first` to `last`, both included, are set; skips empty parts. */
  countBetween(first: number, last: number): number {
    const from = wordOf(first);
    const to = wordOf(last);
    let total = 0;
    for (let index = this.#nextWord(from); index !== -1 && index <= to; ) {
      let word = wordAt(this.#bottom, index);
      if (index === from) word &= maskFrom(first, from);
      if (index === to) word &= maskThrough(last, to);
      total += popCount(word);
      index = this.#nextWord(index + 1);
    }
    return total;
  }

  /**
   * Changes the number of bits: what is cut off is gone, what is new is clear.
   *
   * Growing leaves a sixteenth to spare, so that a disk that grows with every write does not copy its map
   * each time. Memory is taken before anything changes.
   *
   * @throws RangeError more than {@link MAX_BITS}; the tree is as it was
   */
  resize(bits: number): void {
    checkBits(bits);
    const capacity = this.#bottom.length;
    const needed = wordsFor(bits);
    const isCut = bits < this.#bits && needed < capacity;
    const levels =
      isCut || needed > capacity ? allocateLevels(roomFor(needed, capacity)) : undefined;
    if (bits < this.#bits) this.clear(bits, this.#bits - 1);
    this.#bits = bits;
    if (levels === undefined) return;
    const bottom = bottomOf(levels);
    bottom.set(this.#bottom.subarray(0, Math.min(bottom.length, capacity)));
    this.#levels = levels;
    this.#bottom = bottom;
    this.#summarise();
  }

  /** Copies whole 64-bit words into `bytes`, from the one that holds bit `first` to the one of `last`. */
  storeBytes(bytes: Uint8Array, first: number, last: number): void {
    let position = 0;
    const end = halvesEnd(last);
    for (let index = halvesStart(first); index < end; index++) {
      writeU32LE(bytes, position, wordAt(this.#bottom, index));
      position += HALF_BYTES;
    }
  }

  /** Overwrites the 64-bit words of `first` to `last` with `bytes`; {@link finishLoading} must follow. */
  loadBytes(bytes: Uint8Array, first: number, last: number): void {
    let position = 0;
    const end = halvesEnd(last);
    for (let index = halvesStart(first); index < end; index++) {
      this.#bottom[index] = readU32LE(bytes, position);
      position += HALF_BYTES;
    }
  }

  /** Makes the 64-bit words of `first` to `last` all zeroes or all ones; {@link finishLoading} must follow. */
  loadUniform(isSet: boolean, first: number, last: number): void {
    this.#bottom.fill(isSet ? 0xffff_ffff : 0, halvesStart(first), halvesEnd(last));
  }

  /** Clears what was loaded behind the last bit, and makes the levels above and the population true. */
  finishLoading(): void {
    const end = wordOf(this.#bits);
    const kept = this.#bits - end * WORD_BITS;
    const boundary = kept === 0 ? 0 : wordAt(this.#bottom, end) & maskThrough(kept - 1, 0);
    this.#bottom.fill(0, end);
    if (kept > 0) this.#bottom[end] = boundary;
    this.#population = populationOf(this.#bottom);
    this.#summarise();
  }

  /**
   * Checks what must always hold, in a time proportional to the size.
   *
   * @throws Error named `AssertionError`
   */
  assertConsistent(): void {
    const population = populationOf(this.#bottom);
    assert(population === this.#population, "the population is not the number of set bits");
    const last = this.#bottom.length * WORD_BITS - 1;
    const tail = this.#bits > last ? 0 : clearBits(this.#bottom.slice(), this.#bits, last);
    assert(tail === 0, "a bit behind the end is set");
    for (let level = 1; level < this.#levels.length; level++) {
      const below = this.#levels[level - 1] as Uint32Array;
      const expected = new Uint32Array((this.#levels[level] as Uint32Array).length);
      summariseInto(expected, below);
      const isTrue = expected.every((word, index) => word === this.#levels[level]?.[index]);
      assert(isTrue, () => `level ${level} does not tell which words below it are empty`);
    }
  }

  #setInWord(index: number, mask: number): boolean {
    const before = wordAt(this.#bottom, index);
    const added = mask & ~before;
    if (added === 0) return false;
    this.#bottom[index] = before | added;
    this.#population += popCount(added);
    if (before === 0) this.#raise(index);
    return true;
  }

  #clearInWord(index: number, mask: number): boolean {
    const before = wordAt(this.#bottom, index);
    const removed = mask & before;
    if (removed === 0) return false;
    this.#bottom[index] = before & ~removed;
    this.#population -= popCount(removed);
    if (before === removed >>> 0) this.#lower(index);
    return true;
  }

  /** Tells the levels above that the bottom word `index` is no longer 0. */
  #raise(index: number): void {
    let child = index;
    for (let level = 1; level < this.#levels.length; level++) {
      const words = this.#levels[level] as Uint32Array;
      const parent = child >>> WORD_SHIFT;
      const before = wordAt(words, parent);
      words[parent] = before | (1 << child);
      if (before !== 0) return;
      child = parent;
    }
  }

  /** Tells the levels above that the bottom word `index` has become 0. */
  #lower(index: number): void {
    let child = index;
    for (let level = 1; level < this.#levels.length; level++) {
      const words = this.#levels[level] as Uint32Array;
      const parent = child >>> WORD_SHIFT;
      const after = wordAt(words, parent) & ~(1 << child);
      words[parent] = after;
      if (after !== 0) return;
      child = parent;
    }
  }

  /** Tells the levels above that the bottom words `first` to `last` are no longer 0. */
  #raiseRange(first: number, last: number): void {
    let from = first;
    let to = last;
    for (let level = 1; level < this.#levels.length; level++) {
      // When all bits of the range were set, so are those above them.
      if (setBits(this.#levels[level] as Uint32Array, from, to) === 0) return;
      from >>>= WORD_SHIFT;
      to >>>= WORD_SHIFT;
    }
  }

  /** Tells the levels above that the bottom words `first` to `last` lost bits. */
  #lowerRange(first: number, last: number): void {
    let from = first;
    let to = last;
    for (let level = 1; level < this.#levels.length; level++) {
      // Words between the first and the last were cleared whole; those two may have kept bits.
      const below = this.#levels[level - 1] as Uint32Array;
      if (wordAt(below, from) !== 0) from++;
      if (from <= to && wordAt(below, to) !== 0) to--;
      if (from > to) return;
      if (clearBits(this.#levels[level] as Uint32Array, from, to) === 0) return;
      from >>>= WORD_SHIFT;
      to >>>= WORD_SHIFT;
    }
  }

  /** Returns the lowest bottom word that is not below `index` and not 0, or -1. */
  #nextWord(index: number): number {
    if (index >= this.#bottom.length) return -1;
    if (wordAt(this.#bottom, index) !== 0) return index;
    const bit = this.#nextSetBehind(index);
    return bit === -1 ? -1 : wordOf(bit);
  }

  /** Returns the lowest set bit in the words behind bottom word `index`, or -1. */
  #nextSetBehind(index: number): number {
    let sibling = index + 1;
    for (let level = 1; level < this.#levels.length; level++) {
      const words = this.#levels[level] as Uint32Array;
      const parent = sibling >>> WORD_SHIFT;
      if (parent >= words.length) return -1;
      const word = wordAt(words, parent) & (-1 << sibling);
      if (word !== 0) return this.#descend(level, parent, word);
      sibling = parent + 1;
    }
    return -1;
  }

  #descend(topLevel: number, topIndex: number, topWord: number): number {
    let index = topIndex;
    let word = topWord;
    for (let level = topLevel - 1; level >= 0; level--) {
      index = index * WORD_BITS + lowestBit(word);
      word = wordAt(this.#levels[level] as Uint32Array, index);
      assert(word !== 0, "a level announces a word that is empty");
    }
    return index * WORD_BITS + lowestBit(word);
  }

  #summarise(): void {
    for (let level = 1; level < this.#levels.length; level++) {
      summariseInto(this.#levels[level] as Uint32Array, this.#levels[level - 1] as Uint32Array);
    }
  }
}

function summariseInto(words: Uint32Array, below: Uint32Array): void {
  for (let index = 0; index < words.length; index++) {
    const start = index * WORD_BITS;
    const end = Math.min(start + WORD_BITS, below.length);
    let word = 0;
    for (let child = start; child < end; child++) {
      if (wordAt(below, child) !== 0) word |= 1 << (child - start);
    }
    words[index] = word;
  }
}

function populationOf(words: Uint32Array): number {
  let population = 0;
  for (let index = 0; index < words.length; index++) population += popCount(wordAt(words, index));
  return population;
}

function checkBits(bits: number): void {
  if (bits <= MAX_BITS) return;
  throw new RangeError(`${bits} bits are above the limit of ${MAX_BITS}; use a larger granularity`);
}

/** Returns the 32-bit words of a bottom level, an even number of 2 or more. */
function wordsFor(bits: number): number {
  return Math.max(2, Math.ceil(bits / SERIAL_WORD_BITS) * 2);
}

function roomFor(needed: number, capacity: number): number {
  if (needed < capacity) return needed;
  const spare = Math.floor(capacity / 32) * 2;
  return Math.min(Math.max(needed, capacity + spare), wordsFor(MAX_BITS));
}

function allocateLevels(bottomWords: number): Uint32Array[] {
  const levels = [new Uint32Array(bottomWords)];
  for (let words = bottomWords; words > 1; ) {
    words = Math.ceil(words / WORD_BITS);
    levels.push(new Uint32Array(words));
  }
  return levels;
}

function bottomOf(levels: Uint32Array[]): Uint32Array {
  return levels[0] as Uint32Array;
}

function halvesStart(first: number): number {
  return Math.floor(first / SERIAL_WORD_BITS) * 2;
}

function halvesEnd(last: number): number {
  return (Math.floor(last / SERIAL_WORD_BITS) + 1) * 2;
}

/** Returns the bytes of the 64-bit words that hold the bits `first` to `last`, both included. */
export function serialBytes(first: number, last: number): number {
  return (halvesEnd(last) - halvesStart(first)) * HALF_BYTES;
}
