import { isPowerOfTwo, isSafeSize, MAX_LENGTH } from "@blocklayer/offsets";

/* What the methods of a bitmap demand of single arguments; a mistake names the number. */

/** Above it the alignment of serialised chunks, 64 groups, would not be a safe integer. */
const MAX_GRANULARITY = 2 ** 46;

/** @throws RangeError `granularity` is not a power of two from 1 to 2^46 */
export function checkGranularity(granularity: number): void {
  if (isPowerOfTwo(granularity) && granularity <= MAX_GRANULARITY) return;
  throw new RangeError(
    `granularity ${granularity} is not a power of two from 1 to ${MAX_GRANULARITY}`,
  );
}

/** @throws RangeError `size` is not a number of bytes from 0 to {@link MAX_LENGTH} */
export function checkSize(size: number): void {
  if (isSafeSize(size)) return;
  throw new RangeError(`size ${size} is not an integer from 0 to ${MAX_LENGTH}`);
}

/** @throws RangeError `value` is negative, a fraction, or 2^53 and above; `name` says which it was */
export function checkInteger(value: number, name: string): void {
  if (Number.isSafeInteger(value) && value >= 0) return;
  throw new RangeError(`${name} ${value} is not a safe integer of 0 or more`);
}

/** @throws RangeError `bytes` is shorter than a chunk of `needed` bytes */
export function checkRoom(bytes: Uint8Array, needed: number): void {
  if (bytes.length >= needed) return;
  throw new RangeError(`${bytes.length} bytes do not hold a chunk of ${needed}`);
}
