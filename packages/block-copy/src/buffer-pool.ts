import type { Env } from "@blocklayer/env";

/** Bytes that a pool keeps for later. */
const KEPT_MAX = 16 * 2 ** 20;
/** What a buffer that was given back holds in simulations, so that whoever still uses it is found out. */
const POISON = 0xa5;

/** Buffers of one size, used again instead of being made, zeroed and collected for each copy. */
export class BufferPool {
  readonly #env: Env;
  readonly #size: number;
  readonly #free: Uint8Array[] = [];

  /** @param size - bytes of the buffers that are kept */
  constructor(env: Env, size: number) {
    this.#env = env;
    this.#size = size;
  }

  /** Returns a buffer of `length` bytes whose content is whatever it was. */
  take(length: number): Uint8Array {
    if (length > this.#size) return new Uint8Array(length);
    const buffer = this.#free.pop() ?? new Uint8Array(this.#size);
    return length === this.#size ? buffer : buffer.subarray(0, length);
  }

  /** Takes a buffer back; nobody may hold on to it. */
  give(buffer: Uint8Array): void {
    if (this.#env.buggify("poison released buffers")) buffer.fill(POISON);
    if (buffer.length > this.#size || this.#free.length * this.#size >= KEPT_MAX) return;
    const whole = buffer.length === this.#size ? buffer : new Uint8Array(buffer.buffer);
    if (whole.length === this.#size) this.#free.push(whole);
  }
}
