import type { Env } from "@blocklayer/env";

/** Lets one at a time in, first come first served. */
export class Mutex {
  readonly #env: Env;
  readonly #tag: string;
  readonly #waiting: (() => void)[] = [];
  #isHeld: boolean = false;

  constructor(env: Env, tag: string) {
    this.#env = env;
    this.#tag = tag;
  }

  get isHeld(): boolean {
    return this.#isHeld;
  }

  /** Settles as `work` does. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#isHeld) await this.#wait();
    else this.#isHeld = true;
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      // Handed over, not given back: nobody can slip in between.
      if (next === undefined) this.#isHeld = false;
      else this.#env.wake(next, this.#tag);
    }
  }

  #wait(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}
