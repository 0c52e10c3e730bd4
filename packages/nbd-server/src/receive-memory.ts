import type { BufferAccount } from "./buffer-budget.ts";
import type { BufferPool } from "./buffer-pool.ts";
import { Slab } from "./slab.ts";

/** Shortest rest of a slab that is worth a read, bytes. */
const READ_MIN = 64 * 1024;

/**
 * The memory that a transport reads requests into.
 *
 * Data of writes is not copied out of it: a request in flight pins the slab its data lies in, and further bytes go
 * behind. As long as every request ends within its call, the same memory is used for each read.
 */
export class ReceiveMemory {
  readonly #pool: BufferPool;
  readonly #account: BufferAccount;
  #slab: Slab | undefined;
  #position: number = 0;

  constructor(pool: BufferPool, account: BufferAccount) {
    this.#pool = pool;
    this.#account = account;
  }

  /** Returns memory for the next read. */
  buffer(): Uint8Array {
    let slab = this.#slab;
    if (slab === undefined || slab.pins === 0) this.#position = 0;
    if (slab === undefined || slab.bytes.length - this.#position < READ_MIN) {
      slab?.retire();
      slab = new Slab(this.#pool, this.#account);
      this.#slab = slab;
      this.#position = 0;
    }
    return this.#position === 0 ? slab.bytes : slab.bytes.subarray(this.#position);
  }

  /**
   * Bytes were read, and are being looked at until the slab is unpinned.
   *
   * @returns `undefined` when the transport gave memory of its own
   */
  received(chunk: Uint8Array): Slab | undefined {
    const slab = this.#slab;
    if (slab === undefined || chunk.buffer !== slab.bytes.buffer) return undefined;
    this.#position += chunk.length;
    slab.pins += 1;
    return slab;
  }

  /** Nothing is read any more. */
  close(): void {
    this.#slab?.retire();
    this.#slab = undefined;
  }
}
