import type { Clock } from "@blocklayer/env";

/**
 * Spreads work evenly over time slices: whoever charges more than a slice's quota is told how long to wait.
 *
 * A charge larger than the quota is legal and lengthens the slice in proportion, so the mean speed is kept
 * whatever the size of a charge. The quota of a slice can not be saved up: an idle second is lost.
 *
 * The limiter does not wait itself, so the caller decides what may end the waiting. Even while the answer is
 * 0 a long loop has to yield once per iteration, or nothing else gets a turn.
 *
 * @see spec/jobs.md section 10
 */
export class SliceLimiter {
  readonly #clock: Clock;
  #sliceStartMs = 0;
  #sliceEndMs = 0;
  #sliceMs = 0;
  #quota = 0;
  #dispatched = 0;

  /** A new limiter is unlimited. */
  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** What may be charged within one slice, 0 while unlimited. */
  get quota(): number {
    return this.#quota;
  }

  /**
   * Sets the speed. What was charged to the running slice stays charged.
   *
   * @param speed - bytes (or whatever is charged) a second, an integer; 0 is unlimited
   * @param sliceMs - length of a slice in milliseconds, above 0
   * @throws RangeError either is out of its range
   */
  setSpeed(speed: number, sliceMs: number): void {
    if (!Number.isSafeInteger(speed) || speed < 0) {
      throw new RangeError(`speed ${speed} is not a safe integer of 0 or more`);
    }
    if (!(Number.isFinite(sliceMs) && sliceMs > 0)) {
      throw new RangeError(`slice of ${sliceMs} ms is not above 0`);
    }
    this.#sliceMs = sliceMs;
    this.#quota = speed === 0 ? 0 : Math.max(Math.floor((speed * sliceMs) / 1000), 1);
  }

  /**
   * Charges `amount` and returns how long to wait before the next charge.
   *
   * @param amount - a safe integer of 0 or more; 0 asks without charging
   * @returns milliseconds, fractional; 0 or less means: go on
   * @throws RangeError `amount` is out of its range
   */
  delay(amount: number): number {
    if (!Number.isSafeInteger(amount) || amount < 0) {
      throw new RangeError(`charge of ${amount} is not a safe integer of 0 or more`);
    }
    if (this.#quota === 0) return 0;
    const now = this.#clock.now();
    if (this.#sliceEndMs < now) {
      this.#sliceStartMs = now;
      this.#sliceEndMs = now + this.#sliceMs;
      this.#dispatched = 0;
    }
    this.#dispatched += amount;
    if (this.#dispatched < this.#quota) return 0;
    this.#sliceEndMs = this.#sliceStartMs + (this.#dispatched / this.#quota) * this.#sliceMs;
    return this.#sliceEndMs - now;
  }
}
