import { readU32 } from "@blocklayer/offsets";
import { NbdMagic, NbdSize } from "./constants.ts";
import { allocateBytes, FrameInput } from "./frame-input.ts";
import { checkMagic, decodeClientFlags } from "./greeting.ts";
import { NBD_LIMITS } from "./limits.ts";
import { protocolError } from "./malformed.ts";

export interface OptionReaderOptions {
  /** The client's flags come first. Default `true`; `false` for a second haggling, after STARTTLS. */
  readonly clientFlags?: boolean;
  /** Options that are read at all. Default 32. */
  readonly maxOptions?: number;
  /** Bytes of data of one option. Default 64 KiB. */
  readonly maxPayload?: number;
  /** Bytes of data that are read over rather than closing. Default 32 MiB. */
  readonly maxSkip?: number;
}

/** An option of the haggling phase. */
export interface NbdOptionRequest {
  /** See `NbdOption`; any other number is possible. */
  readonly option: number;
  /** Bytes of data that the client announced. */
  readonly length: number;
  /** The data, a copy; empty when oversize. */
  readonly payload: Uint8Array;
  /** The data is longer than the limit: answer ERR_TOO_BIG. The reader skips it. */
  readonly isOversize: boolean;
}

const STAGE_FLAGS = 0;
const STAGE_HEADER = 1;
const STAGE_PAYLOAD = 2;

/**
 * Reads the options of the haggling phase from chunks of any size, for a server.
 *
 * Push a chunk and call `next` until it returns `undefined`. After the option that begins the transmission phase or
 * TLS, `takeRest` gives what was already received of it.
 *
 * @see spec/nbd.md section 1
 */
export class OptionReader {
  readonly #input: FrameInput = new FrameInput(NbdSize.OPTION_HEADER);
  readonly #maxOptions: number;
  readonly #maxPayload: number;
  readonly #maxSkip: number;
  #stage: number;
  #clientFlags: number = -1;
  #count: number = 0;
  #option: number = 0;
  #length: number = 0;
  #failure: unknown;

  constructor(options: OptionReaderOptions = {}) {
    this.#stage = (options.clientFlags ?? true) ? STAGE_FLAGS : STAGE_HEADER;
    this.#maxOptions = options.maxOptions ?? NBD_LIMITS.options;
    this.#maxPayload = options.maxPayload ?? NBD_LIMITS.optionPayload;
    this.#maxSkip = options.maxSkip ?? NBD_LIMITS.optionSkip;
  }

  /** The client's flags, -1 as long as they were not read. */
  get clientFlags(): number {
    return this.#clientFlags;
  }

  /** Number of options read. */
  get count(): number {
    return this.#count;
  }

  /** Adds a chunk. The one before must have been read until `next` returned `undefined`. */
  push(chunk: Uint8Array): void {
    this.#input.push(chunk);
  }

  /**
   * Returns the next option, `undefined` when more bytes are needed. An option with too much data is returned as soon
   * as its header is there, before memory is taken for it.
   *
   * @throws BlockError `EPROTO` unknown client flags, a wrong magic number, too many options, or data too long to be
   *   skipped: close the connection. Every later call throws the same.
   */
  next(): NbdOptionRequest | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      return this.#next();
    } catch (error) {
      this.#failure = error;
      throw error;
    }
  }

  /** Returns what was pushed and not read, between two options. */
  takeRest(): Uint8Array {
    return this.#input.takeRest();
  }

  #next(): NbdOptionRequest | undefined {
    const input = this.#input;
    if (this.#stage === STAGE_FLAGS) {
      if (!input.takeHeader(NbdSize.CLIENT_FLAGS)) return undefined;
      this.#clientFlags = decodeClientFlags(input.header, input.headerAt);
      this.#stage = STAGE_HEADER;
    }
    if (this.#stage === STAGE_HEADER) {
      if (!input.skipped() || !input.takeHeader(NbdSize.OPTION_HEADER)) return undefined;
      this.#readHeader(input.header, input.headerAt);
      if (this.#length > this.#maxPayload) {
        input.skip(this.#length);
        return this.#request(allocateBytes(0), true);
      }
      this.#stage = STAGE_PAYLOAD;
    }
    const payload = input.takePayload(this.#length, true, allocateBytes);
    if (payload === undefined) return undefined;
    this.#stage = STAGE_HEADER;
    return this.#request(payload, false);
  }

  #request(payload: Uint8Array, isOversize: boolean): NbdOptionRequest {
    return { option: this.#option, length: this.#length, payload, isOversize };
  }

  #readHeader(bytes: Uint8Array, at: number): void {
    checkMagic(bytes, at, NbdMagic.OPTION_HIGH, NbdMagic.OPTION_LOW, "option magic");
    this.#option = readU32(bytes, at + 8);
    this.#length = readU32(bytes, at + 12);
    this.#count += 1;
    if (this.#count > this.#maxOptions) {
      throw protocolError(
        `client sent more than ${this.#maxOptions} options`,
        "option count",
        this.#count,
        this.#maxOptions,
      );
    }
    if (this.#length > this.#maxPayload && this.#length > this.#maxSkip) {
      throw protocolError(
        `option ${this.#option} with ${this.#length} bytes of data is longer than ${this.#maxSkip}`,
        "option length",
        this.#length,
        this.#maxSkip,
      );
    }
  }
}
