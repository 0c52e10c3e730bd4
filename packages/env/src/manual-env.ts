import type { Clock, Env } from "./env.ts";
import { OffloadQueue } from "./offload-queue.ts";
import { SeededRandom } from "./seeded-random.ts";
import { settleTurn } from "./turn.ts";

/** A clock that stands still until it is moved. */
export interface ManualClock extends Clock {
  /** Number of sleepers. A test that ends with a sleeper left has leaked a timer. */
  readonly sleeping: number;
  /**
   * Moves the clock, waking sleepers in order of their time and letting everything that follows from one
   * wake-up happen before the next. Sleepers added on the way are woken too if their time comes.
   *
   * @param deltaMs - milliseconds, 0 or more
   */
  advance(deltaMs: number): Promise<void>;
}

export interface ManualEnv extends Env {
  readonly clock: ManualClock;
}

interface Sleeper {
  readonly atMs: number;
  readonly order: number;
  resolve(): void;
}

/**
 * Returns an environment for tests: a clock that moves when told, chance from a seed, wake-ups at once.
 *
 * @param seed - default 1
 */
export function manualEnv(seed = 1): ManualEnv {
  const queue = new OffloadQueue(4);
  return {
    clock: new StandingClock(),
    random: new SeededRandom(seed),
    wake: (resume) => resume(),
    offload: (work) => queue.run(work),
    buggify: () => false,
  };
}

class StandingClock implements ManualClock {
  #nowMs = 0;
  #order = 0;
  readonly #sleepers = new Set<Sleeper>();

  get sleeping(): number {
    return this.#sleepers.size;
  }

  now(): number {
    return this.#nowMs;
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason);
        return;
      }
      const abort = (): void => {
        this.#sleepers.delete(sleeper);
        reject(signal?.reason);
      };
      this.#order += 1;
      const sleeper: Sleeper = {
        atMs: this.#nowMs + Math.max(0, delayMs),
        order: this.#order,
        resolve: () => {
          signal?.removeEventListener("abort", abort);
          resolve();
        },
      };
      this.#sleepers.add(sleeper);
      signal?.addEventListener("abort", abort, { once: true });
    });
  }

  async advance(deltaMs: number): Promise<void> {
    const target = this.#nowMs + deltaMs;
    await settleTurn();
    for (let next = this.#earliest(target); next !== undefined; next = this.#earliest(target)) {
      this.#sleepers.delete(next);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.resolve();
      await settleTurn();
    }
    this.#nowMs = target;
  }

  #earliest(target: number): Sleeper | undefined {
    let earliest: Sleeper | undefined;
    for (const sleeper of this.#sleepers) {
      if (sleeper.atMs > target) continue;
      const sooner =
        earliest === undefined ||
        sleeper.atMs < earliest.atMs ||
        (sleeper.atMs === earliest.atMs && sleeper.order < earliest.order);
      if (sooner) earliest = sleeper;
    }
    return earliest;
  }
}
