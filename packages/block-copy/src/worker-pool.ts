/** Runs works that never reject, a bounded number at a time, for one call. */
export class WorkerPool {
  readonly #limit: () => number;
  #running = 0;
  #freed: (() => void) | undefined;
  #emptied: (() => void) | undefined;

  /** @param limit - how many may run, 1 or more; asked again whenever it matters */
  constructor(limit: () => number) {
    this.#limit = limit;
  }

  /** Starts `work`; resolves when there is room for another one. */
  start(work: () => Promise<void>): Promise<void> | undefined {
    this.#running += 1;
    void work().then(() => this.#ended());
    if (this.#running < this.#limit()) return undefined;
    return new Promise((resolve) => {
      this.#freed = resolve;
    });
  }

  /** Resolves when nothing runs. */
  finished(): Promise<void> | undefined {
    if (this.#running === 0) return undefined;
    return new Promise((resolve) => {
      this.#emptied = resolve;
    });
  }

  #ended(): void {
    this.#running -= 1;
    if (this.#running < this.#limit()) {
      this.#freed?.();
      this.#freed = undefined;
    }
    if (this.#running > 0) return;
    this.#emptied?.();
    this.#emptied = undefined;
  }
}
