/** A single call that takes longer closes the gate, milliseconds. */
const SLOW_MS = 4;
/** The gate closes too when calls take this much on average: a base and a share for each MiB, milliseconds. */
const AVERAGE_MS = 0.2;
const AVERAGE_MS_PER_MIB = 1.5;
const MIB = 2 ** 20;
/** Weight of the newest call in the average. */
const WEIGHT = 1 / 16;
/** A pooled call is quiet when it took no longer, milliseconds. */
const QUIET_MS = 2;
/** Quiet calls before the gate opens: at the beginning, after it closed once, and at most. */
const QUIET_FIRST = 8;
const QUIET_MIN = 64;
const QUIET_MAX = 4096;

/**
 * Decides whether the next call may run within the turn: while such calls are known to be short.
 *
 * | state | what is measured | what changes it |
 * | --- | --- | --- |
 * | closed | calls on the thread pool | enough quiet ones in a row open it |
 * | open | calls within the turn | one slow call, or a slow average, closes it |
 *
 * It begins closed, so that a disk that is slow from the start never holds the event loop. Each time it closes soon
 * after it opened, twice as many quiet calls are asked for: a disk that stalls now and then is tried ever
 * more rarely.
 */
export class LatencyGate {
  #isOpen: boolean = false;
  #quietNeeded = QUIET_FIRST;
  #quietCount = 0;
  #openCount = 0;
  /** Moving average of time taken over time allowed; above 1 is slow. */
  #load = 0;

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Tells how long a call within the turn took. @param length - bytes moved */
  ranNow(tookMs: number, length: number): void {
    const allowedMs = AVERAGE_MS + (length / MIB) * AVERAGE_MS_PER_MIB;
    this.#load += (tookMs / allowedMs - this.#load) * WEIGHT;
    if (tookMs > SLOW_MS || this.#load > 1) this.#close();
    else this.#openCount += 1;
  }

  /** Tells how long a call on the thread pool took. */
  ranPooled(tookMs: number): void {
    if (this.#isOpen) {
      if (tookMs > SLOW_MS) this.#close();
      return;
    }
    this.#quietCount = tookMs <= QUIET_MS ? this.#quietCount + 1 : 0;
    if (this.#quietCount < this.#quietNeeded) return;
    this.#isOpen = true;
    this.#openCount = 0;
    this.#load = 0;
  }

  #close(): void {
    this.#isOpen = false;
    this.#quietCount = 0;
    const isSoon = this.#openCount < QUIET_MAX;
    this.#quietNeeded = isSoon
      ? Math.min(Math.max(this.#quietNeeded * 2, QUIET_MIN), QUIET_MAX)
      : QUIET_MIN;
  }
}
