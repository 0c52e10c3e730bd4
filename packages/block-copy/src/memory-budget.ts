import type { Env } from "@blocklayer/env";

/** Bytes that the tasks of an engine may hold together; who finds it exhausted waits, first come first served. */
export class MemoryBudget {
  readonly #env: Env;
  readonly #size: number;
  #used = 0;
  readonly #waiting: { readonly amount: number; resume(): void }[] = [];

  constructor(env: Env, size: number) {
    this.#env = env;
    this.#size = size;
  }

  get used(): number {
    return this.#used;
  }

  /**
   * Takes `amount` bytes; one that exceeds the whole budget is let in alone.
   *
   * @returns `undefined` when they were there, else a promise
   */
  acquire(amount: number): Promise<void> | undefined {
    if (this.#waiting.length === 0 && this.#fits(amount)) {
      this.#used += amount;
      return undefined;
    }
    return new Promise((resume) => this.#waiting.push({ amount, resume }));
  }

  release(amount: number): void {
    this.#used -= amount;
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (!this.#fits(next.amount)) return;
      this.#waiting.shift();
      this.#used += next.amount;
      this.#env.wake(next.resume, "copy memory");
    }
  }

  #fits(amount: number): boolean {
    return this.#used === 0 || this.#used + amount <= this.#size;
  }
}
