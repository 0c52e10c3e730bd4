/**
 * Which parts of one range have been covered, each byte once.
 *
 * Pieces that touch are joined, so chunks in order cost one entry.
 */
export class RangeCover {
  /** Starts and ends of the covered pieces, ascending and apart from each other. */
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];

  /** Number of separate pieces. */
  get pieces(): number {
    return this.#starts.length;
  }

  /**
   * Covers `[start, end)`, which is not empty.
   *
   * @returns `false`, and changes nothing, when a byte of it is covered already
   */
  add(start: number, end: number): boolean {
    const index = this.#firstEndingAtOrAfter(start);
    const before = this.#ends[index];
    // A piece that ends exactly where this one starts is its neighbour; the one after is the next candidate.
    const touchesBefore = before === start;
    const after = touchesBefore ? index + 1 : index;
    const afterStart = this.#starts[after];
    if (afterStart !== undefined && afterStart < end) return false;
    const touchesAfter = afterStart === end;
    if (touchesBefore && touchesAfter) {
      this.#ends.splice(index, 1);
      this.#starts.splice(after, 1);
    } else if (touchesBefore) {
      this.#ends[index] = end;
    } else if (touchesAfter) {
      this.#starts[after] = start;
    } else {
      this.#starts.splice(index, 0, start);
      this.#ends.splice(index, 0, end);
    }
    return true;
  }

  /** Returns whether exactly `[start, end)` is covered. */
  isWhole(start: number, end: number): boolean {
    if (start === end) return this.pieces === 0;
    return this.pieces === 1 && this.#starts[0] === start && this.#ends[0] === end;
  }

  #firstEndingAtOrAfter(position: number): number {
    let low = 0;
    let high = this.#ends.length;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if ((this.#ends[middle] ?? 0) < position) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
