import { assert } from "@blocklayer/errors";
import type { BufferAccount } from "./buffer-budget.ts";
import type { BufferPool } from "./buffer-pool.ts";

/** Bytes of a slab; many small requests or replies share one. */
export const SLAB_LENGTH: number = 256 * 1024;

/** A buffer that several requests use parts of. Each of them pins it. */
export class Slab {
  readonly bytes: Uint8Array;
  /** Number of parts in use. */
  pins: number = 0;
  readonly #pool: BufferPool;
  readonly #account: BufferAccount;
  #isRetired: boolean = false;

  constructor(pool: BufferPool, account: BufferAccount) {
    this.#pool = pool;
    this.#account = account;
    this.bytes = pool.take(SLAB_LENGTH);
  }

  unpin(): void {
    assert(this.pins > 0, "a slab is unpinned as often as it was pinned");
    this.pins -= 1;
    if (this.pins > 0 || !this.#isRetired) return;
    this.#account.release(this.bytes.length);
    this.#pool.give(this.bytes);
  }

  /**
   * Nobody takes new parts of it: it goes back to the pool with its last pin. Until then it is charged whole, because a
   * single slow request keeps all of it.
   */
  retire(): void {
    assert(!this.#isRetired, "a slab is retired once");
    this.#isRetired = true;
    if (this.pins === 0) this.#pool.give(this.bytes);
    else this.#account.keep(this.bytes.length);
  }
}
