/** Time by argument. */
export interface Clock {
  /** Milliseconds since an arbitrary moment, fractional, never running backwards. */
  now(): number;
  /**
   * Resolves after `delayMs` milliseconds, and never in the same turn of the event loop: `sleep(0)` lets
   * everything else that is ready run once.
   *
   * @param delayMs - milliseconds, 0 or more
   * @param signal - aborting rejects with the signal's reason and drops the timer
   */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
}

/** Chance by argument. Not for secrets unless the environment is the real one. */
export interface Random {
  /** An integer from 0 to 2^32 − 1. */
  u32(): number;
  /** An integer from 0 to `bound − 1`; `bound` from 1 to 2^32. */
  below(bound: number): number;
  /** `length` bytes. */
  bytes(length: number): Uint8Array;
}

/**
 * Everything that is not a function of its input. Every package takes one and nothing else may reach time,
 * chance or the scheduler, so that the same code runs in production and under a seeded scheduler that
 * decides every order of completions.
 *
 * @see docs/design.md section 5
 */
export interface Env {
  readonly clock: Clock;
  readonly random: Random;
  /**
   * Resumes a waiter (of a lock, a queue, a semaphore). In production at once, inside the call; in
   * simulation the moment is a decision of the scheduler. A waiter counts as the owner of what it waited
   * for from the moment of this call, not from the moment it runs.
   *
   * @param resume - resolves the waiter's promise; must not throw
   * @param tag - names the place in a trace
   */
  wake(resume: () => void, tag: string): void;
  /**
   * Runs CPU work that is asynchronous by itself (compression on a thread pool), a bounded number at a time,
   * first come first served. Settles as `work` does.
   */
  offload<T>(work: () => Promise<T>): Promise<T>;
  /** Whether to take the rare path at `site`. Constant `false` in production. */
  buggify(site: string): boolean;
}
