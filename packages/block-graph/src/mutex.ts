import type { Env } from "@blocklayer/env";
import { assert } from "@blocklayer/errors";

/** One owner at a time, first come first served. Handed over, never taken back: a waiter owns it from its wake-up. */
export class Mutex {
  readonly #env: Env;
  readonly #name: string;
  readonly #waiters: (() => void)[] = [];
  #locked: boolean = false;

  constructor(env: Env, name: string) {
    this.#env = env;
    this.#name = name;
  }

  /** Takes it when it is free. */
  tryLock(): boolean {
    if (this.#locked) return false;
    this.#locked = true;
    return true;
  }

  /** Resolves when the caller has it. */
  lock(): Promise<void> | undefined {
    if (this.tryLock()) return undefined;
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  unlock(): void {
    assert(this.#locked, "a mutex is unlocked by its owner");
    const next = this.#waiters.shift();
    if (next === undefined) this.#locked = false;
    else this.#env.wake(next, this.#name);
  }
}
