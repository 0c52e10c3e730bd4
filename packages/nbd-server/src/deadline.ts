import type { Clock } from "@blocklayer/env";

const OFF = Number.POSITIVE_INFINITY;

/**
 * One moment after which something is too late. Made to be set and cleared often: a sleeper that is under way is left
 * to itself and looks anew when it wakes, so that most settings cost no timer.
 */
export class Deadline {
  readonly #clock: Clock;
  readonly #expired: () => void;
  #atMs: number = OFF;
  #wakesAtMs: number = OFF;
  #sleeper: AbortController | undefined;

  /** @param expired - called once per setting, when the moment has come */
  constructor(clock: Clock, expired: () => void) {
    this.#clock = clock;
    this.#expired = expired;
  }

  /** Sets the moment to `delayMs` from now, instead of any earlier setting. */
  set(delayMs: number): void {
    this.#atMs = this.#clock.now() + delayMs;
    if (this.#wakesAtMs > this.#atMs) this.#sleep(delayMs);
  }

  /** Nothing can be too late any more, until the next `set`. */
  clear(): void {
    this.#atMs = OFF;
  }

  /** Clears, and drops the timer that `clear` leaves to itself. */
  cancel(): void {
    this.#atMs = OFF;
    this.#wakesAtMs = OFF;
    this.#sleeper?.abort();
    this.#sleeper = undefined;
  }

  #sleep(delayMs: number): void {
    this.#sleeper?.abort();
    const sleeper = new AbortController();
    this.#sleeper = sleeper;
    this.#wakesAtMs = this.#clock.now() + delayMs;
    this.#clock.sleep(delayMs, sleeper.signal).then(
      () => {
        if (this.#sleeper === sleeper) this.#woken();
      },
      (error: unknown) => {
        // An aborted sleep was replaced by a sooner one, or the deadline is closed.
        if (!sleeper.signal.aborted) throw error;
      },
    );
  }

  #woken(): void {
    this.#sleeper = undefined;
    this.#wakesAtMs = OFF;
    if (this.#atMs === OFF) return;
    const restMs = this.#atMs - this.#clock.now();
    if (restMs > 0) {
      this.#sleep(restMs);
      return;
    }
    this.#atMs = OFF;
    this.#expired();
  }
}
