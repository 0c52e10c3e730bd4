/** Whether others may hold an overlapping range at the same time: shared with shared only. */
export type RangeMode = "shared" | "exclusive";

/**
 * A range that is held. Whoever has it releases it, once; releasing again is harmless, so that `using` and an
 * early `release()` go together.
 */
export interface RangeHold extends Disposable {
  /** Bytes from the start. */
  readonly offset: number;
  /** Bytes. Changes by {@link RangeHold.shrink} only. */
  readonly length: number;
  readonly mode: RangeMode;
  /** Gives the range back and grants what waited for it alone. A second call does nothing. */
  release(): void;
  /**
   * Keeps `[offset, offset + newLength)` and gives the rest back, granting what waited for that rest alone.
   *
   * @param newLength - bytes, 0 up to the present length; with 0 the hold conflicts with nothing any more
   * @throws RangeError `newLength` is not such an integer
   * @throws Error (assertion) the hold was released
   */
  shrink(newLength: number): void;
}

/** What a request tells of itself to the lock it belongs to. */
export interface RangeRequestOwner {
  released(request: RangeRequest): void;
  shrinking(request: RangeRequest, newLength: number): void;
}

/**
 * A request from the moment it is made: first it may wait, then it is the hold.
 *
 * `blockers` counts the earlier requests it still has to wait for. The set of those is fixed when the request
 * is made and only ever gets smaller; at zero the request is granted.
 */
export class RangeRequest implements RangeHold {
  readonly offset: number;
  length: number;
  readonly mode: RangeMode;
  readonly #owner: RangeRequestOwner;
  /** `false` for one that waits without taking: nobody has to wait for it. */
  readonly takes: boolean;
  blockers: number = 0;
  /** Set while waiting: resumes the waiter. */
  grant: (() => void) | undefined;

  constructor(
    owner: RangeRequestOwner,
    offset: number,
    length: number,
    mode: RangeMode,
    takes: boolean,
  ) {
    this.#owner = owner;
    this.offset = offset;
    this.length = length;
    this.mode = mode;
    this.takes = takes;
  }

  /** Returns whether this request would conflict with `later` if it were `length` bytes long. */
  conflicts(later: RangeRequest, length: number = this.length): boolean {
    if (!this.takes || (this.mode === "shared" && later.mode === "shared")) return false;
    return (
      length > 0 &&
      later.length > 0 &&
      this.offset < later.offset + later.length &&
      later.offset < this.offset + length
    );
  }

  release(): void {
    this.#owner.released(this);
  }

  shrink(newLength: number): void {
    this.#owner.shrinking(this, newLength);
  }

  [Symbol.dispose](): void {
    this.release();
  }
}
