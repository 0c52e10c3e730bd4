import type { Clock } from "@blocklayer/env";

/** A call that has run for longer than this says that the disk stalls, milliseconds. */
const STALL_MS = 20;

interface WaitingCall {
  start(): void;
}

/**
 * Bounds how many calls of one file run on the thread pool at once, and knows when one of them stalls.
 *
 * The pool is shared by all files and by everything else in the process: a disk that hangs keeps the threads
 * of its own share, and the rest goes on.
 */
export class CallQueue {
  readonly #clock: Clock;
  readonly #limit: number;
  /** When each running call began; the first is the oldest. */
  readonly #running = new Set<{ readonly sinceMs: number }>();
  readonly #waiting = new Set<WaitingCall>();

  /** @param limit - calls at once, 1 or more */
  constructor(clock: Clock, limit: number) {
    this.#clock = clock;
    this.#limit = limit;
  }

  /** Calls that run or wait. */
  get size(): number {
    return this.#running.size + this.#waiting.size;
  }

  /** Whether a call has been running for suspiciously long. */
  isStalled(): boolean {
    for (const { sinceMs } of this.#running) return this.#clock.now() - sinceMs > STALL_MS;
    return false;
  }

  /**
   * Runs a call when its turn comes, first come first served.
   *
   * @param signal - aborting takes a waiting call out of the queue; one that runs is left to end, since the
   *   operating system still uses its buffer
   */
  run<T>(call: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (this.#running.size < this.#limit && this.#waiting.size === 0) return this.#start(call);
    return new Promise<T>((resolve, reject) => {
      const abort = (): void => {
        this.#waiting.delete(entry);
        reject(signal?.reason);
      };
      const entry: WaitingCall = {
        start: () => {
          signal?.removeEventListener("abort", abort);
          this.#start(call).then(resolve, reject);
        },
      };
      this.#waiting.add(entry);
      signal?.addEventListener("abort", abort, { once: true });
    });
  }

  async #start<T>(call: () => Promise<T>): Promise<T> {
    const running = { sinceMs: this.#clock.now() };
    this.#running.add(running);
    try {
      return await call();
    } finally {
      this.#running.delete(running);
      this.#startNext();
    }
  }

  #startNext(): void {
    for (const entry of this.#waiting) {
      if (this.#running.size >= this.#limit) return;
      this.#waiting.delete(entry);
      entry.start();
    }
  }
}
