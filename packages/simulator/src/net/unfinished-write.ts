import { sameBytes } from "../disk/same-bytes.ts";

interface Handed {
  readonly chunk: Uint8Array;
  /** What it held when it was handed over. */
  readonly copy: Uint8Array;
}

/**
 * A write that the transport could not take at once. A sender can not know which part of it is taken, so all of
 * its memory stays in use until the whole is.
 */
export class UnfinishedWrite {
  readonly #handed: readonly Handed[];
  readonly #changed: () => void;
  /** The chunk that is taken next, and how many bytes of it were. */
  #index: number = 0;
  #at: number = 0;

  /** @param changed - called when the memory does not hold any more what was handed over */
  constructor(chunks: readonly Uint8Array[], changed: () => void) {
    this.#handed = chunks
      .filter((chunk) => chunk.length > 0)
      .map((chunk) => ({ chunk, copy: chunk.slice() }));
    this.#changed = changed;
  }

  get isDone(): boolean {
    return this.#index === this.#handed.length;
  }

  /** Takes up to `room` bytes: what was handed over, even if the memory has changed meanwhile. */
  take(room: number): Uint8Array {
    const parts: Uint8Array[] = [];
    for (let left = room; left > 0 && !this.isDone; ) {
      const { copy } = this.#handed[this.#index] as Handed;
      const part = copy.subarray(this.#at, this.#at + left);
      parts.push(part);
      left -= part.length;
      this.#at += part.length;
      if (this.#at < copy.length) break;
      this.#index += 1;
      this.#at = 0;
    }
    if (this.isDone) this.#check();
    return joined(parts);
  }

  #check(): void {
    if (!this.#handed.every(({ chunk, copy }) => sameBytes(chunk, copy))) this.#changed();
  }
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
