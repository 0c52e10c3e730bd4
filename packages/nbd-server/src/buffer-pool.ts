import type { Env } from "@blocklayer/env";

/** What a buffer has beyond a power of two, for headers. */
const HEADROOM = 4096;
const SMALLEST = 64 * 1024;
/** What a buffer that was given back holds in simulations, so that whoever still uses it is found out. */
const POISON = 0xa5;

/**
 * Buffers that are used again, by power-of-two size classes. Memory that is warm in the cache and needs no zeroing is
 * worth more than the copy it saves.
 */
export class BufferPool {
  readonly #free: Uint8Array[][] = [];
  readonly #retainMax: number;
  readonly #poisons: boolean;
  #retained: number = 0;

  /**
   * @param retainMax - bytes that are kept for later; what is given back beyond is left to the collector
   * @param env - may want what is given back to be spoilt
   */
  constructor(retainMax: number, env?: Pick<Env, "buggify">) {
    this.#retainMax = retainMax;
    this.#poisons = env?.buggify("poison released buffers") ?? false;
  }

  /** Bytes that are kept for later. */
  get retained(): number {
    return this.#retained;
  }

  /** Returns a buffer of at least `length` bytes with any content. */
  take(length: number): Uint8Array {
    const index = classOf(length);
    const buffer = this.#free[index]?.pop();
    if (buffer === undefined) return new Uint8Array(SMALLEST * 2 ** index + HEADROOM);
    this.#retained -= buffer.length;
    return buffer;
  }

  /** Takes a buffer back that `take` returned. */
  give(buffer: Uint8Array): void {
    if (this.#poisons) buffer.fill(POISON);
    if (this.#retained + buffer.length > this.#retainMax) return;
    this.#retained += buffer.length;
    const index = classOf(buffer.length);
    const free = this.#free[index] ?? [];
    this.#free[index] = free;
    free.push(buffer);
  }

  /** Forgets everything that is kept. */
  clear(): void {
    this.#free.length = 0;
    this.#retained = 0;
  }
}

function classOf(length: number): number {
  let index = 0;
  for (let size = SMALLEST; size + HEADROOM < length; size *= 2) index += 1;
  return index;
}
