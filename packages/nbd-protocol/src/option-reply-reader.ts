import { readU32 } from "@blocklayer/offsets";
import { isOptionError, NbdMagic, NbdOptionReply, NbdSize } from "./constants.ts";
import { allocateBytes, FrameInput } from "./frame-input.ts";
import { checkMagic } from "./greeting.ts";
import { NBD_LIMITS } from "./limits.ts";
import { protocolError } from "./malformed.ts";
import { decodeExportNameReply, type NbdExportNameReply } from "./option-reply.ts";

export interface OptionReplyReaderOptions {
  /** Bytes of data of one reply. Default 64 KiB. */
  readonly maxPayload?: number;
  /** Replies to one option. Default 65,536. */
  readonly maxReplies?: number;
}

/** A reply to an option. */
export interface NbdOptionReplyMessage {
  /** The option that is answered. */
  readonly option: number;
  /** See `NbdOptionReply`. */
  readonly type: number;
  /** The data, a copy; of an error the message. */
  readonly payload: Uint8Array;
}

/**
 * Reads the replies of the haggling phase from chunks of any size, for a client.
 *
 * Use one reader from the greeting to the transmission phase: `next` for replies with a header,
 * `nextExportName` for the reply to EXPORT_NAME, which has none. `takeRest` then gives what was already received
 * of the transmission phase.
 *
 * @see spec/nbd.md section 1
 */
export class OptionReplyReader {
  readonly #input: FrameInput = new FrameInput(
    NbdSize.EXPORT_NAME_REPLY + NbdSize.EXPORT_NAME_ZEROES,
  );
  readonly #maxPayload: number;
  readonly #maxReplies: number;
  #count: number = 0;
  #inPayload: boolean = false;
  #option: number = 0;
  #type: number = 0;
  #length: number = 0;
  #failure: unknown;

  constructor(options: OptionReplyReaderOptions = {}) {
    this.#maxPayload = options.maxPayload ?? NBD_LIMITS.optionPayload;
    this.#maxReplies = options.maxReplies ?? NBD_LIMITS.optionReplies;
  }

  /** Adds a chunk. The one before must have been read until `next` returned `undefined`. */
  push(chunk: Uint8Array): void {
    this.#input.push(chunk);
  }

  /**
   * Returns the next reply, `undefined` when more bytes are needed.
   *
   * @throws BlockError `EPROTO` a wrong magic number, too much data, or too many replies without an end. Every later
   *   call throws the same.
   */
  next(): NbdOptionReplyMessage | undefined {
    return this.#guard(() => this.#nextReply());
  }

  /**
   * Returns the reply to EXPORT_NAME, `undefined` when more bytes are needed.
   *
   * @param noZeroes - both sides set NO_ZEROES
   * @throws BlockError `EFBIG` an export of 2^53 bytes or more
   */
  nextExportName(noZeroes: boolean): NbdExportNameReply | undefined {
    return this.#guard(() => {
      const input = this.#input;
      const zeroes = noZeroes ? 0 : NbdSize.EXPORT_NAME_ZEROES;
      if (!input.takeHeader(NbdSize.EXPORT_NAME_REPLY + zeroes)) return undefined;
      return decodeExportNameReply(input.header, input.headerAt);
    });
  }

  /** Returns what was pushed and not read, between two replies. */
  takeRest(): Uint8Array {
    return this.#input.takeRest();
  }

  #guard<T>(read: () => T): T {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      return read();
    } catch (error) {
      this.#failure = error;
      throw error;
    }
  }

  #nextReply(): NbdOptionReplyMessage | undefined {
    if (!this.#inPayload) {
      if (!this.#input.takeHeader(NbdSize.OPTION_REPLY_HEADER)) return undefined;
      this.#readHeader(this.#input.header, this.#input.headerAt);
      this.#inPayload = true;
    }
    const payload = this.#input.takePayload(this.#length, true, allocateBytes);
    if (payload === undefined) return undefined;
    this.#inPayload = false;
    return { option: this.#option, type: this.#type, payload };
  }

  #readHeader(bytes: Uint8Array, at: number): void {
    const { OPTION_REPLY_HIGH, OPTION_REPLY_LOW } = NbdMagic;
    checkMagic(bytes, at, OPTION_REPLY_HIGH, OPTION_REPLY_LOW, "option reply magic");
    this.#option = readU32(bytes, at + 8);
    this.#type = readU32(bytes, at + 12);
    this.#length = readU32(bytes, at + 16);
    if (this.#length > this.#maxPayload) {
      throw protocolError(
        `option reply with ${this.#length} bytes of data is longer than ${this.#maxPayload}`,
        "option reply length",
        this.#length,
        this.#maxPayload,
      );
    }
    this.#count += 1;
    if (this.#count > this.#maxReplies) {
      throw protocolError(
        `server sent more than ${this.#maxReplies} replies to option ${this.#option}`,
        "option reply count",
        this.#count,
        this.#maxReplies,
      );
    }
    if (this.#type === NbdOptionReply.ACK || isOptionError(this.#type)) this.#count = 0;
  }
}
