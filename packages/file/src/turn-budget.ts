/** Bytes that may be moved within one turn of the event loop: about 2 ms of copying on a slow machine. */
const BYTES_PER_TURN = 4 * 2 ** 20;
/** What a measured millisecond counts, in bytes: four of them fill a turn. */
const BYTES_PER_MS = 2 ** 20;
/** What a small call costs at least, in bytes: a system call takes as long as copying this much. */
const BYTES_PER_CALL = 4096;

/**
 * Bounds what is read and written within one turn of the event loop, over all files.
 *
 * It also ends loops that never leave a turn: a copy whose every request completes within the call
 * would otherwise keep everybody else waiting until it is done.
 *
 * @see docs/reliability.md section 3.6.3: a turn takes at most 10 ms
 */
export class TurnBudget {
  readonly #onNextTurn: (callback: () => void) => void;
  #used = 0;

  /** @param onNextTurn - calls back in the next turn */
  constructor(onNextTurn: (callback: () => void) => void) {
    this.#onNextTurn = onNextTurn;
  }

  /** Takes a request's share. @returns whether there was room for it in this turn */
  take(length: number): boolean {
    if (this.#used === 0) this.#onNextTurn(this.#renew);
    if (this.#used >= BYTES_PER_TURN) return false;
    this.#used += Math.max(length, BYTES_PER_CALL);
    return true;
  }

  /** Counts how long a call took that was measured; the turn is full when that is more than its bytes tell. */
  charge(tookMs: number): void {
    this.#used += tookMs * BYTES_PER_MS;
  }

  readonly #renew = (): void => {
    this.#used = 0;
  };
}
