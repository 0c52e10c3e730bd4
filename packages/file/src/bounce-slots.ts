import { assert } from "@blocklayer/errors";

/** What this file needs of the WebAssembly interface; it is in every engine that runs Node. */
declare const WebAssembly: {
  readonly Memory: new (limits: {
    readonly initial: number;
    readonly maximum: number;
  }) => { readonly buffer: ArrayBuffer };
};

const WASM_PAGE = 65536;

/** Bytes of a slot. */
export const SLOT_SIZE: number = 2 ** 20;

/**
 * Page-aligned buffers for I/O that bypasses the page cache: a disk's controller reads and writes them directly,
 * and asks for aligned memory, which ordinary buffers are not.
 *
 * The memory of a WebAssembly instance begins at a page boundary, so no native call is needed to get it.
 */
export class BounceSlots {
  readonly #free: Uint8Array[] = [];

  /** @param count - slots; as many as requests can be in the thread pool at once */
  constructor(count: number) {
    const pages = (count * SLOT_SIZE) / WASM_PAGE;
    const { buffer } = new WebAssembly.Memory({ initial: pages, maximum: pages });
    for (let index = 0; index < count; index += 1) {
      this.#free.push(new Uint8Array(buffer, index * SLOT_SIZE, SLOT_SIZE));
    }
  }

  /** Lends a slot to `use`. */
  async lend<T>(use: (slot: Uint8Array) => Promise<T>): Promise<T> {
    const slot = this.#free.pop();
    assert(slot !== undefined, "there are as many slots as calls at once");
    try {
      return await use(slot);
    } finally {
      this.#free.push(slot);
    }
  }
}
