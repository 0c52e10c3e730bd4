import { alignDown } from "@blocklayer/offsets";
import type { HBitmap } from "./hbitmap.ts";

/**
 * Visits the dirty groups of a bitmap in ascending order while the bitmap may change.
 *
 * The iterator holds a position and nothing else, so what it returns is true at the moment of the call:
 * a group that was cleared ahead is not returned, a group that was set ahead is found, a group that was
 * set behind is not. Truncating the bitmap leaves the iterator valid.
 *
 * Differs: groups set ahead within the words of the current path may be missed by the reference, and
 * truncating ends the validity of its iterators.
 *
 * @see spec/hbitmap.md section 3
 */
export class HBitmapIterator {
  readonly #bitmap: HBitmap;
  #position: number;

  /**
   * @param bitmap - what to iterate; not copied
   * @param firstOffset - bytes; the group that holds it is the first one visited
   * @throws RangeError `firstOffset` is not an integer from 0 to the end of the last group
   */
  constructor(bitmap: HBitmap, firstOffset: number = 0) {
    const { granularity, size } = bitmap;
    const end = Math.ceil(size / granularity) * granularity;
    if (!Number.isSafeInteger(firstOffset) || firstOffset < 0 || firstOffset > end) {
      throw new RangeError(`iteration from ${firstOffset} is outside of a bitmap of ${size} bytes`);
    }
    this.#bitmap = bitmap;
    this.#position = alignDown(firstOffset, granularity);
  }

  /**
   * Returns the start of the next dirty group, in bytes; -1 at the end and ever after.
   *
   * The first value may lie below `firstOffset`: it is where the group starts.
   */
  next(): number {
    const { granularity, size } = this.#bitmap;
    const found = this.#position < size ? this.#bitmap.nextDirty(this.#position) : -1;
    if (found === -1) {
      this.#position = Number.POSITIVE_INFINITY;
      return -1;
    }
    const start = alignDown(found, granularity);
    this.#position = start + granularity;
    return start;
  }
}
