/** How far a job is, in units of its own (bytes, mostly). */
export interface Progress {
  readonly current: number;
  readonly total: number;
}

/**
 * Counts done and expected work. What is done never shrinks; what is expected changes in both directions.
 *
 * @see spec/jobs.md section 11
 */
export class ProgressMeter {
  #current = 0;
  #total = 0;

  /** Work done so far. */
  get current(): number {
    return this.#current;
  }

  /** Work done and expected. A job that succeeds ends with `current` equal to it. */
  get total(): number {
    return this.#total;
  }

  /**
   * Adds `amount` to what is done; the total stays.
   *
   * @throws RangeError `amount` is not a safe integer of 0 or more
   */
  workDone(amount: number): void {
    checkAmount(amount, 0);
    this.#current += amount;
  }

  /**
   * Makes `amount` what is left.
   *
   * @throws RangeError `amount` is not a safe integer of 0 or more
   */
  setRemaining(amount: number): void {
    checkAmount(amount, 0);
    this.#total = this.#current + amount;
  }

  /**
   * Adds `amount` to what is left; a negative one takes away.
   *
   * @throws RangeError `amount` is not a safe integer
   */
  increaseRemaining(amount: number): void {
    checkAmount(amount, Number.MIN_SAFE_INTEGER);
    this.#total += amount;
  }

  /** Returns both numbers of one moment. */
  snapshot(): Progress {
    return { current: this.#current, total: this.#total };
  }
}

function checkAmount(amount: number, min: number): void {
  if (!Number.isSafeInteger(amount) || amount < min) {
    throw new RangeError(`amount of work ${amount} is not a safe integer of ${min} or more`);
  }
}
