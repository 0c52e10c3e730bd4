import { BlockError } from "@blocklayer/errors";
import type { Decisions } from "../decisions.ts";
import type { Medium } from "./medium.ts";

/** How many requests for a status go well for each of a medium's weight of faults. */
const STATUS_WEIGHT = 160;

/** What an image stores: a medium, and which units of it count. It outlives the drivers that open it. */
export class OverlayStore {
  readonly medium: Medium;
  /** Bytes that are allocated as one: the medium's sectors. */
  readonly unit: number;
  readonly #decisions: Decisions;
  /** 1 for each unit that the image holds. */
  readonly #units: Uint8Array;

  constructor(medium: Medium, decisions: Decisions) {
    this.medium = medium;
    this.unit = medium.cache.sectorSize;
    this.#decisions = decisions;
    this.#units = new Uint8Array(medium.size / this.unit);
  }

  /** Puts content in place, stable at once, and holds all units of the range. */
  format(offset: number, content: Uint8Array): void {
    const whole = this.medium.cache.visible.slice();
    whole.set(content, offset);
    this.medium.format(whole);
    this.allocate(offset, content.length);
  }

  /** Holds a range of whole units from now on. */
  allocate(offset: number, length: number): void {
    this.#units.fill(1, offset / this.unit, Math.ceil((offset + length) / this.unit));
  }

  /** Returns how the units at `offset` are: whether they are held, and for how many bytes. */
  run(offset: number, length: number): { readonly isAllocated: boolean; readonly length: number } {
    const first = Math.floor(offset / this.unit);
    const isAllocated = this.#units[first] === 1;
    let end = first + 1;
    while (end * this.unit < offset + length && (this.#units[end] === 1) === isAllocated) end += 1;
    return { isAllocated, length: Math.min(end * this.unit, offset + length) - offset };
  }

  /** Returns which units are held, as they are now: 1 for each. */
  units(): Uint8Array {
    return this.#units.slice();
  }

  /** Returns the content, with what is below where the image holds nothing. */
  contentOver(below: Uint8Array | undefined): Uint8Array {
    const content = new Uint8Array(this.medium.size);
    if (below !== undefined) content.set(below.subarray(0, content.length));
    const { visible } = this.medium.cache;
    for (let at = 0; at < content.length; ) {
      const { isAllocated, length } = this.run(at, content.length - at);
      if (isAllocated) content.set(visible.subarray(at, at + length), at);
      at += length;
    }
    return content;
  }

  /** Asks the medium what is stored; fails now and then where the medium does. @throws BlockError `EIO` */
  async status(offset: number, length: number): Promise<{ isHole: boolean; length: number }> {
    const { medium } = this;
    const { faults } = medium.behaviour;
    const mayFail = faults > 0;
    const status = await medium.status(offset, length, this.unit);
    if (mayFail && this.#decisions.chance(`${medium.name} status fails`, faults, STATUS_WEIGHT)) {
      medium.faultCount += 1;
      const message = `simulated failure of status, ${length} bytes at ${offset}`;
      throw new BlockError("EIO", message, { medium: medium.name, offset, length });
    }
    return status;
  }
}
