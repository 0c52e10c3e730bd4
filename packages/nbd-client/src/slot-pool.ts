/** The places of requests in flight, 0 to `count - 1`; the one given back last is taken first. */
export class SlotPool {
  readonly #free: number[];

  constructor(count: number) {
    this.#free = Array.from({ length: count }, (_, index) => count - 1 - index);
  }

  get isEmpty(): boolean {
    return this.#free.length === 0;
  }

  /** Takes a place. Not to be called when there is none. */
  take(): number {
    return this.#free.pop() ?? -1;
  }

  give(slot: number): void {
    this.#free.push(slot);
  }
}
