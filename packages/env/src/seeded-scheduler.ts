import type { Clock, Env } from "./env.ts";
import { SeededRandom } from "./seeded-random.ts";
import { settleTurn } from "./turn.ts";

export interface SeededSchedulerOptions {
  /** The seed: the same seed and program give the same run. */
  readonly seed: number;
  /** Chance of `env.buggify`, 0 to 1. Default 0. */
  readonly buggify?: number;
  /** Runs all promise jobs that are ready. Default {@link settleTurn}. */
  readonly drain?: () => Promise<void>;
}

interface Completion {
  readonly tag: string;
  /** The completion may not be delivered before this time, in simulated milliseconds. */
  readonly atMs: number;
  deliver(): void;
}

/**
 * Chooses, from a seed, the order in which completions are delivered.
 *
 * Whatever would complete in a macrotask of its own in production (I/O, a timer, a lock's hand-over) is
 * posted here instead. `run` delivers one, lets every promise job run, and chooses the next, which is
 * exactly the freedom that an event loop has. Time jumps to the next timer when nothing else is pending.
 *
 * @see docs/reliability.md section 3.3.2
 */
export class SeededScheduler {
  readonly env: Env;
  readonly random: SeededRandom;
  /** Tags of what was delivered, in order: equal for equal seeds. */
  readonly trace: string[] = [];
  readonly #drain: () => Promise<void>;
  readonly #pending: Completion[] = [];
  #nowMs = 0;

  constructor(options: SeededSchedulerOptions) {
    this.random = new SeededRandom(options.seed);
    this.#drain = options.drain ?? settleTurn;
    const chance = options.buggify ?? 0;
    this.env = {
      clock: this.#clock(),
      random: this.random,
      wake: (resume, tag) => this.post(`wake ${tag}`, resume),
      offload: async (work) => {
        const result = await work();
        await this.turn("offload");
        return result;
      },
      buggify: () => this.random.u32() < chance * 2 ** 32,
    };
  }

  /** Number of completions that wait to be delivered. */
  get pending(): number {
    return this.#pending.length;
  }

  /** Adds a completion; `run` decides when it is delivered. */
  post(tag: string, deliver: () => void, delayMs = 0): void {
    this.#pending.push({ tag, atMs: this.#nowMs + delayMs, deliver });
  }

  /** Resolves when the scheduler delivers it: a simulated macrotask. */
  turn(tag: string, delayMs = 0): Promise<void> {
    return new Promise((resolve) => this.post(tag, resolve, delayMs));
  }

  /**
   * Runs until `main` has settled, and settles as it does.
   *
   * @throws Error `main` waits for something and nothing is pending: a deadlock
   */
  async run<T>(main: () => Promise<T>): Promise<T> {
    let settled = false;
    const result = main();
    const mark = (): void => {
      settled = true;
    };
    result.then(mark, mark);
    await this.#drain();
    while (!settled) {
      if (!this.#deliverOne()) {
        throw new Error(`deadlock at ${this.#nowMs} ms after ${this.trace.length} completions`);
      }
      await this.#drain();
    }
    return await result;
  }

  /** Delivers what is left once `main` is done, so that a leak shows. */
  async settle(): Promise<void> {
    await this.#drain();
    while (this.#deliverOne()) await this.#drain();
  }

  #deliverOne(): boolean {
    if (this.#pending.length === 0) return false;
    let ready = this.#pending.filter(({ atMs }) => atMs <= this.#nowMs);
    if (ready.length === 0) {
      this.#nowMs = Math.min(...this.#pending.map(({ atMs }) => atMs));
      ready = this.#pending.filter(({ atMs }) => atMs <= this.#nowMs);
    }
    const chosen = ready[this.random.below(ready.length)];
    if (chosen === undefined) return false;
    this.#pending.splice(this.#pending.indexOf(chosen), 1);
    this.trace.push(chosen.tag);
    chosen.deliver();
    return true;
  }

  #clock(): Clock {
    return {
      now: () => this.#nowMs,
      sleep: (delayMs, signal) =>
        new Promise((resolve, reject) => {
          if (signal?.aborted === true) {
            reject(signal.reason);
            return;
          }
          const abort = (): void => {
            this.#forget(deliver);
            reject(signal?.reason);
          };
          const deliver = (): void => {
            signal?.removeEventListener("abort", abort);
            resolve();
          };
          signal?.addEventListener("abort", abort, { once: true });
          this.post("sleep", deliver, Math.max(0, delayMs));
        }),
    };
  }

  #forget(deliver: () => void): void {
    const index = this.#pending.findIndex((completion) => completion.deliver === deliver);
    if (index >= 0) this.#pending.splice(index, 1);
  }
}
