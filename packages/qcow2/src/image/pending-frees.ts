/** Why a cluster is freed; decides whether its host space is given back. */
export type DiscardClass = "never" | "always" | "request" | "snapshot" | "other";

/** Clusters that nothing refers to any more in memory, but perhaps on the disk. */
export interface PendingFree {
  /** Bytes, whole clusters. */
  readonly offset: number;
  readonly length: number;
  readonly discard: DiscardClass;
}

/**
 * Clusters whose references are gone in memory. They stay counted, so that nobody gets them, until it is durable that
 * nothing refers to them and no request is busy in them.
 *
 * @see docs/reliability.md section 3.2, Q2-5 and Q2-6
 */
export class PendingFrees {
  #waiting: PendingFree[] = [];
  /** Those whose unlinking is durable. */
  #durable: PendingFree[] = [];
  #bytes = 0;

  /** Bytes of the host file that wait. */
  get bytes(): number {
    return this.#bytes;
  }

  get isEmpty(): boolean {
    return this.#waiting.length === 0 && this.#durable.length === 0;
  }

  /** Whether a free waits for the unlinking to be durable. */
  get hasWaiting(): boolean {
    return this.#waiting.length > 0;
  }

  add(free: PendingFree): void {
    const last = this.#waiting.at(-1);
    this.#bytes += free.length;
    if (last?.discard === free.discard && last.offset + last.length === free.offset) {
      this.#waiting[this.#waiting.length - 1] = { ...last, length: last.length + free.length };
    } else {
      this.#waiting.push(free);
    }
  }

  /** Takes those whose unlinking is in what is about to be written. */
  takeWaiting(): readonly PendingFree[] {
    const taken = this.#waiting;
    this.#waiting = [];
    return taken;
  }

  /** The write did not come about. */
  giveBack(frees: readonly PendingFree[]): void {
    this.#waiting = [...frees, ...this.#waiting];
  }

  /** It is durable now that nothing refers to these, which were taken by {@link takeWaiting}. */
  becameDurable(frees: readonly PendingFree[]): void {
    this.#durable.push(...frees);
  }

  /** Takes those that may be freed now, if `isBusy` agrees; the others wait for the next time. */
  takeDurable(isBusy: (free: PendingFree) => boolean): readonly PendingFree[] {
    const free = this.#durable.filter((one) => !isBusy(one));
    if (free.length === 0) return free;
    this.#durable = this.#durable.filter((one) => !free.includes(one));
    for (const { length } of free) this.#bytes -= length;
    return free;
  }

  /** Nothing durable refers to these: they were never linked, their table has been switched, or their freeing failed. */
  addDurable(frees: readonly PendingFree[]): void {
    this.#durable.push(...frees);
    for (const { length } of frees) this.#bytes += length;
  }
}
