/**
 * Remembers the last run of data that a protocol node reported, since finding holes is a system call.
 *
 * A run goes when anything that could have put a hole into it begins or ends. Answering "data" for zeroes is
 * harmless, the opposite would not be, and it is never cached.
 *
 * @see spec/graph.md section 7.12; docs/reliability.md BS-3
 */
export class StatusCache {
  #start = 0;
  #end = 0;
  /** Changes with every invalidation, so that an answer that was under way meanwhile is not remembered. */
  epoch = 0;

  /** Returns how many bytes from `offset` are known to be data, 0 if unknown. */
  dataAt(offset: number): number {
    return offset >= this.#start && offset < this.#end ? this.#end - offset : 0;
  }

  /** @param epoch - {@link epoch} from before the driver was asked */
  remember(offset: number, length: number, epoch: number): void {
    if (epoch !== this.epoch) return;
    this.#start = offset;
    this.#end = offset + length;
  }

  invalidate(offset: number, length: number): void {
    this.epoch += 1;
    if (offset < this.#end && offset + length > this.#start) this.#end = this.#start;
  }
}
