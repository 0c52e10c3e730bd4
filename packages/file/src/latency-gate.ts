/** A call that takes longer is slow, milliseconds. */
const SLOW_MS = 4;
/**
 * Slow calls may take this share of all time, and this much at once, milliseconds: what is more closes the gate. A
 * busy machine takes the processor away for a while too, and pooled calls suffer more from that.
 */
const SLOW_SHARE = 1 / 20;
const SLOW_ONCE_MS = 40;
/** The gate closes too when calls take this much on average: a base and a share for each MiB, milliseconds. */
const AVERAGE_MS = 0.2;
const AVERAGE_MS_PER_MIB = 1.5;
const MIB = 2 ** 20;
/** Weight of the newest call in the average, and what it counts at most. */
const WEIGHT = 1 / 16;
const LOAD_MAX = 4;
/** A pooled call is quiet when it took no longer, milliseconds. */
const QUIET_MS = 2;
/** What a pooled call may take longer for each MiB, milliseconds. */
const POOLED_MS_PER_MIB = 1.5;
/** Quiet calls before the gate opens: at the beginning, after it closed once, and at most. */
const QUIET_FIRST = 8;
const QUIET_MIN = 64;
const QUIET_MAX = 4096;
/** How many quiet pooled calls a slow one undoes. */
const QUIET_UNDONE = 64;

/**
 * Decides whether the next call may run within the turn: while such calls are known to be short.
 *
 * | state | what is measured | what changes it |
 * | --- | --- | --- |
 * | closed | calls on the thread pool | enough quiet ones, and few slow ones between them, open it |
 * | open | calls within the turn | slow calls that take much in all, or a slow average, close it |
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
  /** What slow calls may still take, milliseconds, and when that was. */
  #slowLeftMs = SLOW_ONCE_MS;
  #countedAtMs = 0;

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /**
   * Tells how long a call within the turn took.
   *
   * @param length - bytes moved
   * @param nowMs - when it ended
   */
  ranNow(tookMs: number, length: number, nowMs: number): void {
    const allowedMs = AVERAGE_MS + (length / MIB) * AVERAGE_MS_PER_MIB;
    this.#load += (Math.min(tookMs / allowedMs, LOAD_MAX) - this.#load) * WEIGHT;
    if ((tookMs > SLOW_MS && !this.#mayBeSlow(tookMs, nowMs)) || this.#load > 1) this.#close();
    else this.#openCount += 1;
  }

  /** Tells how long a call on the thread pool took. Arguments as those of `ranNow`. */
  ranPooled(tookMs: number, length: number, nowMs: number): void {
    const restMs = tookMs - (length / MIB) * POOLED_MS_PER_MIB;
    if (this.#isOpen) {
      if (restMs > SLOW_MS && !this.#mayBeSlow(restMs, nowMs)) this.#close();
      return;
    }
    if (restMs <= QUIET_MS) this.#quietCount += 1;
    else if (restMs > SLOW_MS) this.#quietCount = Math.max(0, this.#quietCount - QUIET_UNDONE);
    if (this.#quietCount < this.#quietNeeded) return;
    this.#isOpen = true;
    this.#openCount = 0;
    this.#load = 0;
    this.#slowLeftMs = SLOW_ONCE_MS;
    this.#countedAtMs = nowMs;
  }

  /** Counts a slow call against what slow calls may take. @returns whether there was enough left */
  #mayBeSlow(tookMs: number, nowMs: number): boolean {
    const savedMs = (nowMs - this.#countedAtMs) * SLOW_SHARE;
    this.#slowLeftMs = Math.min(SLOW_ONCE_MS, this.#slowLeftMs + savedMs) - tookMs;
    this.#countedAtMs = nowMs;
    return this.#slowLeftMs >= 0;
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
