/** How a connection ended for the side that is told. */
export interface Loss {
  /** What the transport knows of the reason. */
  readonly error?: unknown;
  /** Noticed at once; otherwise only by reading, or after a write. */
  readonly isLoud: boolean;
}

/** What was sent to one end of a connection and not delivered yet: bytes, then perhaps an end, then perhaps a loss. */
export class Inbox {
  isEnded: boolean = false;
  loss: Loss | undefined;
  readonly #chunks: Uint8Array[] = [];
  #length: number = 0;

  /** Bytes. */
  get length(): number {
    return this.#length;
  }

  push(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#chunks.push(bytes);
    this.#length += bytes.length;
  }

  /** Takes the first `length` bytes. */
  take(length: number): Uint8Array {
    const [first] = this.#chunks;
    if (first !== undefined && first.length === length) {
      this.#chunks.shift();
      this.#length -= length;
      return first;
    }
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; ) {
      const chunk = this.#chunks.shift() as Uint8Array;
      const count = Math.min(chunk.length, length - at);
      bytes.set(chunk.subarray(0, count), at);
      if (count < chunk.length) this.#chunks.unshift(chunk.subarray(count));
      at += count;
    }
    this.#length -= length;
    return bytes;
  }

  /** Loses all but the first `length` bytes. */
  truncate(length: number): void {
    const kept = this.take(Math.min(length, this.#length));
    this.#chunks.length = 0;
    this.#length = 0;
    this.push(kept);
  }
}
