import { NbdSize } from "./constants.ts";
import { FrameInput } from "./frame-input.ts";
import { decodeGreeting, greetingLength, type NbdGreeting } from "./greeting.ts";

/** Bytes after which newstyle and oldstyle are known apart. */
const MAGICS = 16;

/**
 * Reads the greeting of a server from chunks of any size, for a client.
 *
 * @see spec/nbd.md section 1
 */
export class GreetingReader {
  readonly #input: FrameInput = new FrameInput(NbdSize.OLDSTYLE_GREETING);
  readonly #greeting: Uint8Array = new Uint8Array(NbdSize.OLDSTYLE_GREETING);
  #length: number = 0;
  #failure: unknown;

  /** Adds a chunk. The one before must have been read until `next` returned `undefined`. */
  push(chunk: Uint8Array): void {
    this.#input.push(chunk);
  }

  /**
   * Returns the greeting, `undefined` when more bytes are needed. A reader reads one greeting.
   *
   * @throws BlockError `EPROTO` not an NBD server; `EFBIG` an oldstyle export of 2^53 bytes or more
   */
  next(): NbdGreeting | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      return this.#next();
    } catch (error) {
      this.#failure = error;
      throw error;
    }
  }

  /** Returns what was pushed and not read: the beginning of the next phase. */
  takeRest(): Uint8Array {
    return this.#input.takeRest();
  }

  #next(): NbdGreeting | undefined {
    const input = this.#input;
    if (this.#length === 0) {
      if (!input.takeHeader(MAGICS)) return undefined;
      this.#length = greetingLength(input.header, input.headerAt);
      this.#greeting.set(input.header.subarray(input.headerAt, input.headerAt + MAGICS));
    }
    const rest = this.#length - MAGICS;
    if (!input.takeHeader(rest)) return undefined;
    this.#greeting.set(input.header.subarray(input.headerAt, input.headerAt + rest), MAGICS);
    this.#length = 0;
    return decodeGreeting(this.#greeting);
  }
}
