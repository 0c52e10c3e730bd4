import type { Env } from "@blocklayer/env";
import { assert } from "@blocklayer/errors";

/** Counts requests in flight and resumes who waits until there are none. */
export class InFlightCounter {
  readonly #env: Env;
  #count = 0;
  #idle: Promise<void> | undefined;
  #resume: (() => void) | undefined;

  constructor(env: Env) {
    this.#env = env;
  }

  /** Number of requests in flight, and of other work that counts as such. */
  get inFlight(): number {
    return this.#count;
  }

  /**
   * Waits until nothing is in flight.
   *
   * @returns `undefined` when nothing is; else a promise that resolves when nothing was, and the caller asks again
   */
  idle(): Promise<void> | undefined {
    if (this.#count === 0) return undefined;
    this.#idle ??= new Promise((resolve) => {
      this.#resume = resolve;
    });
    return this.#idle;
  }

  /** Counts work until the hold is disposed. Disposing twice is harmless. */
  hold(): Disposable {
    let isHeld = true;
    this.enter();
    return {
      [Symbol.dispose]: () => {
        if (isHeld) this.leave();
        isHeld = false;
      },
    };
  }

  enter(): void {
    this.#count += 1;
  }

  leave(): void {
    this.#count -= 1;
    if (this.#count === 0 && this.#resume !== undefined) this.#wakeIdle(this.#resume);
    assert(this.#count >= 0, "what left was in flight");
  }

  /** Counts `work` until it has settled. */
  async counted<T>(work: () => Promise<T>): Promise<T> {
    this.enter();
    try {
      return await work();
    } finally {
      this.leave();
    }
  }

  #wakeIdle(resume: () => void): void {
    this.#idle = undefined;
    this.#resume = undefined;
    this.#env.wake(resume, "idle");
  }
}
