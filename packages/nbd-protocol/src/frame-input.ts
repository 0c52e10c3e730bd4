import { assert } from "@blocklayer/errors";

const EMPTY = new Uint8Array(0);

/** Makes a buffer of exactly `length` bytes. */
export type Allocate = (length: number) => Uint8Array;

/** The default {@link Allocate}. */
export function allocateBytes(length: number): Uint8Array {
  return new Uint8Array(length);
}

/**
 * The part of a received chunk that was not read yet, and what was kept of a frame that began in an earlier one.
 *
 * A frame's header and payload that lie in one chunk are not copied.
 */
export class FrameInput {
  #chunk: Uint8Array = EMPTY;
  #position: number = 0;
  readonly #scratch: Uint8Array;
  #have: number = 0;
  #payload: Uint8Array = EMPTY;
  #gathered: number = -1;
  #skip: number = 0;
  /** Where the header is that {@link FrameInput.takeHeader} found. */
  header: Uint8Array = EMPTY;
  headerAt: number = 0;

  /** @param headerMax - bytes of the longest header */
  constructor(headerMax: number) {
    this.#scratch = new Uint8Array(headerMax);
  }

  /** Bytes of the chunk that were not read yet. */
  get available(): number {
    return this.#chunk.length - this.#position;
  }

  push(chunk: Uint8Array): void {
    assert(this.available === 0, "the last chunk is read to its end before the next is pushed");
    this.#chunk = chunk;
    this.#position = 0;
  }

  /** Gives the unread rest of the chunk away, to the reader of the next phase. */
  takeRest(): Uint8Array {
    assert(
      this.#have === 0 && this.#gathered < 0 && this.#skip === 0,
      "the rest is taken between two frames",
    );
    const rest = this.#chunk.subarray(this.#position);
    this.#chunk = EMPTY;
    this.#position = 0;
    return rest;
  }

  /** Returns whether a header of `length` bytes is there: in `header`, from `headerAt` on. */
  takeHeader(length: number): boolean {
    if (this.#have === 0 && this.available >= length) {
      this.header = this.#chunk;
      this.headerAt = this.#position;
      this.#position += length;
      return true;
    }
    this.#have += this.#copy(this.#scratch, this.#have, length - this.#have);
    if (this.#have < length) return false;
    this.header = this.#scratch;
    this.headerAt = 0;
    this.#have = 0;
    return true;
  }

  /**
   * Returns a payload when all of it is there: a part of the chunk, or a buffer of its own when it spans chunks or
   * `volatile` says that the chunk's memory will change.
   */
  takePayload(length: number, volatile: boolean, allocate: Allocate): Uint8Array | undefined {
    if (length === 0) return EMPTY;
    if (this.#gathered < 0) {
      if (!volatile && this.available >= length) {
        const start = this.#position;
        this.#position += length;
        return this.#chunk.subarray(start, this.#position);
      }
      this.#payload = allocate(length);
      assert(
        this.#payload.length === length,
        "the allocator gave a buffer of the length asked for",
      );
      this.#gathered = 0;
    }
    this.#gathered += this.#copy(this.#payload, this.#gathered, length - this.#gathered);
    if (this.#gathered < length) return undefined;
    const payload = this.#payload;
    this.#payload = EMPTY;
    this.#gathered = -1;
    return payload;
  }

  /** Copies up to `length` bytes to `target` and returns how many there were. */
  copyTo(target: Uint8Array, position: number, length: number): number {
    return this.#copy(target, position, length);
  }

  /** Begins to read over `length` bytes. */
  skip(length: number): void {
    this.#skip = length;
  }

  /** Returns whether everything to be skipped has been read over. */
  skipped(): boolean {
    const count = Math.min(this.#skip, this.available);
    this.#position += count;
    this.#skip -= count;
    return this.#skip === 0;
  }

  #copy(target: Uint8Array, position: number, length: number): number {
    const count = Math.min(length, this.available);
    if (count === 0) return 0;
    const part =
      count === this.#chunk.length
        ? this.#chunk
        : this.#chunk.subarray(this.#position, this.#position + count);
    target.set(part, position);
    this.#position += count;
    return count;
  }
}
