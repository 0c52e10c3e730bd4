/** Tasks at once before anything is known of the disks. */
const START = 4;
/** So that one reads while another writes. */
const LEAST = 2;
/** Milliseconds that a background task may always take. */
const PATIENCE_MS = 40;
/** How many times the shortest task seen a task may take: more is time spent waiting for other tasks. */
const PATIENCE = 3;

/**
 * Learns how many background tasks may run at once, because a guest's write waits behind all that is queued in a
 * disk: as many as the caller allows while each is done soon, fewer when they wait for one another.
 *
 * A slow disk copies as much by few tasks as by many. Over a distant connection more tasks copy more, and take no
 * longer, so there may be more.
 *
 * Differs: the reference always runs as many as it may.
 */
export class TaskWindow {
  #size = START;
  #shortestMs = Number.POSITIVE_INFINITY;

  /** Tasks that may run at once. */
  get size(): number {
    return this.#size;
  }

  /**
   * @param tookMs - milliseconds of a task that ended
   * @param most - tasks that the caller allows
   */
  learn(tookMs: number, most: number): void {
    this.#shortestMs = Math.min(this.#shortestMs, tookMs);
    this.#size =
      tookMs > Math.max(PATIENCE_MS, PATIENCE * this.#shortestMs)
        ? Math.max(LEAST, this.#size - 1)
        : Math.min(this.#size + 1, Math.max(START, most));
  }
}
