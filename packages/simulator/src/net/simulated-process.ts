import type { Clock, Env } from "@blocklayer/env";
import type { WorldScheduler } from "../world-scheduler.ts";

export interface SimulatedProcessOptions {
  /**
   * Pieces that a long sleep is made of. The scheduler lets timers go off early now and then; of a sleep in pieces only
   * one piece is skipped that way, so that long time-outs stay rare. Default 1.
   */
  readonly sleepPieces?: number;
}

/**
 * One of several processes of a world: its environment is that of the world until it is killed. From then on nothing
 * that it waits for ever comes: no wake-up, no timer, no byte.
 *
 * A kill must happen in a turn of its own, so that nothing of the process is half done.
 */
export class SimulatedProcess {
  readonly name: string;
  readonly env: Env;
  /** Resolves when it is killed. */
  readonly dead: Promise<void>;
  readonly #scheduler: WorldScheduler;
  readonly #sleepPieces: number;
  readonly #sleepers = new Set<AbortController>();
  #isAlive: boolean = true;
  #die: () => void = nothing;

  constructor(name: string, scheduler: WorldScheduler, options: SimulatedProcessOptions = {}) {
    this.name = name;
    this.#scheduler = scheduler;
    this.#sleepPieces = options.sleepPieces ?? 1;
    this.dead = new Promise((resolve) => {
      this.#die = resolve;
    });
    const world = scheduler.env;
    this.env = {
      clock: this.#clock(),
      random: world.random,
      wake: (resume, tag) => world.wake(() => this.deliver(resume), tag),
      offload: async (work) => this.#unlessDead(await world.offload(work)),
      buggify: (site) => world.buggify(site),
    };
  }

  get isAlive(): boolean {
    return this.#isAlive;
  }

  /** Calls back, unless the process is dead. */
  deliver(callback: () => void): void {
    if (this.#isAlive) callback();
  }

  /** Waits for something inside the process; resolves with `undefined` when the process dies first. */
  survive<T>(work: Promise<T>): Promise<T | undefined> {
    return Promise.race([work, this.dead.then(() => undefined)]);
  }

  kill(): void {
    this.#isAlive = false;
    for (const sleeper of this.#sleepers) sleeper.abort();
    this.#sleepers.clear();
    this.#die();
  }

  #unlessDead<T>(value: T): T | Promise<T> {
    return this.#isAlive ? value : new Promise<T>(nothing);
  }

  #clock(): Clock {
    return {
      now: () => this.#scheduler.env.clock.now(),
      sleep: (delayMs, signal) =>
        new Promise((resolve, reject) => {
          if (signal?.aborted === true) {
            reject(signal.reason);
            return;
          }
          const sleeper = new AbortController();
          const abort = (): void => sleeper.abort(signal?.reason);
          const over = (settle: () => void): void => {
            signal?.removeEventListener("abort", abort);
            this.#sleepers.delete(sleeper);
            this.deliver(settle);
          };
          this.#sleepers.add(sleeper);
          signal?.addEventListener("abort", abort, { once: true });
          this.#sleep(delayMs, sleeper.signal).then(
            () => over(resolve),
            (error: unknown) => over(() => reject(error)),
          );
        }),
    };
  }

  async #sleep(delayMs: number, signal: AbortSignal): Promise<void> {
    const { clock } = this.#scheduler.env;
    const endMs = clock.now() + delayMs;
    const piece = Math.ceil(delayMs / this.#sleepPieces);
    do {
      await clock.sleep(Math.min(piece, Math.max(0, endMs - clock.now())), signal);
    } while (clock.now() < endMs);
  }
}

function nothing(): void {
  // Nobody waits, or for ever.
}
