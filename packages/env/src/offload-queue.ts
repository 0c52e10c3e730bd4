/** Runs asynchronous work, at most `limit` at a time, in the order in which it was given. */
export class OffloadQueue {
  readonly #limit: number;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  /** @param limit - 1 or more */
  constructor(limit: number) {
    if (!Number.isSafeInteger(limit) || limit < 1) {
      throw new RangeError(`offload limit ${limit} is not an integer of 1 or more`);
    }
    this.#limit = limit;
  }

  /** Number of works that have begun and not settled. */
  get running(): number {
    return this.#running;
  }

  /** Settles as `work` does; a failure leaves the queue usable. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#limit) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else {
      this.#running += 1;
    }
    try {
      return await work();
    } finally {
      // The place is handed over, not given back, so nobody can slip in between.
      const next = this.#waiting.shift();
      if (next === undefined) this.#running -= 1;
      else next();
    }
  }
}
