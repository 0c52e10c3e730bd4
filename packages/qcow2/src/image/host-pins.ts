/** A range of the host file that a request reads or writes. */
export interface HostPin {
  readonly start: number;
  readonly end: number;
}

/**
 * The ranges of the host file that requests are busy with: a cluster that was freed is not used again while one
 * of them is in it. This is what keeps a late write from landing in the data of somebody else.
 *
 * @see docs/reliability.md section 3.2, Q2-6
 */
export class HostPins {
  readonly #pins = new Set<HostPin>();

  get count(): number {
    return this.#pins.size;
  }

  /** @param start - bytes; `length` bytes from there are in use until {@link unpin} */
  pin(start: number, length: number): HostPin {
    const pin: HostPin = { start, end: start + length };
    this.#pins.add(pin);
    return pin;
  }

  unpin(pin: HostPin): void {
    this.#pins.delete(pin);
  }

  /** Whether any request is busy in the range. */
  overlaps(start: number, length: number): boolean {
    const end = start + length;
    for (const pin of this.#pins) if (pin.start < end && start < pin.end) return true;
    return false;
  }
}
