/*
 * Bits in an array of 32-bit words: bit number n is bit n % 32 of word floor(n / 32). A bit number may be
 * above 2^32 and then loses its head in `>>>` and `&`; so words are found by division, and only a bit's
 * place inside its word meets a bitwise operator.
 *
 * The right operand of a shift counts modulo 32, by the language's definition: `1 << n` is the bit of
 * number n within its word.
 */

/** Bits in one word, and words below one word of the next level. */
export const WORD_BITS = 32;

/** `index >>> WORD_SHIFT` is the word above word `index`: word numbers, unlike bit numbers, fit 31 bits. */
export const WORD_SHIFT = 5;

const ALL_ONES = 0xffff_ffff;

/** Returns the number of the word that holds bit number `bit`. */
export function wordOf(bit: number): number {
  return Math.floor(bit / WORD_BITS);
}

/** Returns the word at `index`, which the caller knows to be inside the array. */
export function wordAt(words: Uint32Array, index: number): number {
  // The index is checked where a range enters; a second check per word would cost a third of `set`.
  return words[index] as number;
}

/** Returns the mask of the bits of word `index` that are not below `bit`; `bit` lies in that word. */
export function maskFrom(bit: number, index: number): number {
  return -1 << (bit - index * WORD_BITS);
}

/** Returns the mask of the bits of word `index` that are not above `bit`; `bit` lies in that word. */
export function maskThrough(bit: number, index: number): number {
  return -1 >>> (WORD_BITS - 1 - (bit - index * WORD_BITS));
}

/** Returns how many bits of a word are set. */
export function popCount(word: number): number {
  const pairs = word - ((word >>> 1) & 0x5555_5555);
  const nibbles = (pairs & 0x3333_3333) + ((pairs >>> 2) & 0x3333_3333);
  return Math.imul((nibbles + (nibbles >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}

/** Returns the place, 0 to 31, of the lowest set bit of a word that is not 0. */
export function lowestBit(word: number): number {
  return WORD_BITS - 1 - Math.clz32(word & -word);
}

/** Sets the bits `first` to `last`, both included, and returns how many of them were clear. */
export function setBits(words: Uint32Array, first: number, last: number): number {
  const from = wordOf(first);
  const to = wordOf(last);
  if (from === to) return addToWord(words, from, maskFrom(first, from) & maskThrough(last, to));
  let added = addToWord(words, from, maskFrom(first, from));
  for (let index = from + 1; index < to; index++) added += popCount(~wordAt(words, index));
  words.fill(ALL_ONES, from + 1, to);
  return added + addToWord(words, to, maskThrough(last, to));
}

/** Clears the bits `first` to `last`, both included, and returns how many of them were set. */
export function clearBits(words: Uint32Array, first: number, last: number): number {
  const from = wordOf(first);
  const to = wordOf(last);
  if (from === to) return takeFromWord(words, from, maskFrom(first, from) & maskThrough(last, to));
  let removed = takeFromWord(words, from, maskFrom(first, from));
  for (let index = from + 1; index < to; index++) removed += popCount(wordAt(words, index));
  words.fill(0, from + 1, to);
  return removed + takeFromWord(words, to, maskThrough(last, to));
}

function addToWord(words: Uint32Array, index: number, mask: number): number {
  const before = wordAt(words, index);
  const added = mask & ~before;
  if (added === 0) return 0;
  words[index] = before | added;
  return popCount(added);
}

function takeFromWord(words: Uint32Array, index: number, mask: number): number {
  const before = wordAt(words, index);
  const removed = mask & before;
  if (removed === 0) return 0;
  words[index] = before & ~removed;
  return popCount(removed);
}
