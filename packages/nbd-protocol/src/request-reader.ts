import { readU16, readU32 } from "@blocklayer/offsets";
import { NbdCommand, NbdCommandFlag, NbdErrno, NbdMagic, NbdSize } from "./constants.ts";
import { type Allocate, allocateBytes, FrameInput } from "./frame-input.ts";
import { NBD_LIMITS } from "./limits.ts";
import { protocolError } from "./malformed.ts";
import { errorBeyondEnd, type NbdRequestHeader, readSize, wrongMagic } from "./request.ts";

export interface RequestReaderOptions {
  /** Extended headers were negotiated. */
  readonly extended: boolean;
  /** Bytes of payload of one request. Default 32 MiB. */
  readonly maxPayload?: number;
  /**
   * The memory of pushed chunks is used again by the transport: payloads are copied out. Default `false`: a
   * payload that lies in one chunk is a part of that chunk.
   */
  readonly volatile?: boolean;
  /** Makes the buffers that payloads are gathered in. Default `new Uint8Array(length)`. */
  readonly allocate?: Allocate;
  /**
   * Asked once the header of a request with a payload is there, before memory is taken. After `false`, `next`
   * returns `undefined` with the payload unread, and each later call of `next` asks again. Default: always `true`.
   */
  readonly admit?: (payloadLength: number) => boolean;
}

/** A request as it was received. The object is used again: it is valid until the next call of `next`. */
export interface NbdRequest extends NbdRequestHeader {
  /** Data of a WRITE, filter of a BLOCK_STATUS; empty else. Stays valid, see {@link RequestReader}. */
  readonly payload: Uint8Array;
  /**
   * 0, or the error number to answer with, because the request can not be carried out whatever the export: an
   * offset or length of 2^53 or more, or a payload that does not belong there. Its payload was dropped.
   */
  readonly fault: number;
}

const EMPTY = new Uint8Array(0);

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

const STAGE_HEADER = 0;
const STAGE_PAYLOAD = 1;
const STAGE_SKIP = 2;
const STAGE_ADMISSION = 3;

/**
 * Reads the requests of the transmission phase from chunks of any size, for a server.
 *
 * Push a chunk, call `next` until it returns `undefined`, push the next chunk: several requests in one chunk are
 * several calls. Leaving requests unread and not pushing is how a server stops reading.
 *
 * Ownership: a payload belongs to the caller. It is a part of the pushed chunk when it lies whole in it and the
 * reader is not `volatile`; else a buffer of exactly its length, filled by one copy. Nothing else refers to the
 * chunk once `next` has returned `undefined`.
 *
 * Two kinds of wrong requests: one that can be answered has a `fault`; after one that makes the stream
 * incomprehensible `next` throws, now and at every later call, and the connection is to be closed.
 *
 * Differs: a WRITE without PAYLOAD_LEN under extended headers closes. The document leaves it open whether data
 * follows, and guessing wrong would take a guest's data for commands.
 *
 * @see spec/nbd.md section 3
 */
export class RequestReader {
  readonly #input: FrameInput = new FrameInput(NbdSize.EXTENDED_REQUEST);
  readonly #extended: boolean;
  readonly #size: number;
  readonly #maxPayload: number;
  readonly #volatile: boolean;
  readonly #allocate: Allocate;
  readonly #admit: ((payloadLength: number) => boolean) | undefined;
  readonly #request: Mutable<NbdRequest> = {
    flags: 0,
    type: 0,
    cookieHigh: 0,
    cookieLow: 0,
    offset: 0,
    length: 0,
    payload: EMPTY,
    fault: 0,
  };
  #stage: number = STAGE_HEADER;
  #payloadLength: number = 0;
  #failure: Error | undefined;

  constructor(options: RequestReaderOptions) {
    this.#extended = options.extended;
    this.#size = options.extended ? NbdSize.EXTENDED_REQUEST : NbdSize.REQUEST;
    this.#maxPayload = options.maxPayload ?? NBD_LIMITS.payload;
    this.#volatile = options.volatile ?? false;
    this.#allocate = options.allocate ?? allocateBytes;
    this.#admit = options.admit;
  }

  /** Adds a chunk. The one before must have been read until `next` returned `undefined`. */
  push(chunk: Uint8Array): void {
    this.#input.push(chunk);
  }

  /**
   * Returns the next whole request, `undefined` when more bytes are needed or its payload was not admitted.
   *
   * @throws BlockError `EPROTO` a wrong magic number, or a payload that is missing its flag or longer than the
   *   limit; `context` names field, value and limit, and the cookie where one was read
   */
  next(): NbdRequest | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#stage === STAGE_HEADER) {
      if (!this.#input.takeHeader(this.#size)) return undefined;
      this.#readHeader();
    }
    if (this.#stage === STAGE_ADMISSION) {
      if (this.#admit?.(this.#payloadLength) === false) return undefined;
      this.#stage = STAGE_PAYLOAD;
    }
    const request = this.#request;
    if (this.#stage === STAGE_PAYLOAD) {
      const payload = this.#input.takePayload(this.#payloadLength, this.#volatile, this.#allocate);
      if (payload === undefined) return undefined;
      request.payload = payload;
    } else {
      if (this.#stage === STAGE_SKIP && !this.#input.skipped()) return undefined;
      request.payload = EMPTY;
    }
    this.#stage = STAGE_HEADER;
    return request;
  }

  /** Returns what was pushed and not read, between two requests. */
  takeRest(): Uint8Array {
    return this.#input.takeRest();
  }

  #readHeader(): void {
    const { header: bytes, headerAt: at } = this.#input;
    const magic = readU32(bytes, at);
    const wanted = this.#extended ? NbdMagic.EXTENDED_REQUEST : NbdMagic.REQUEST;
    if (magic !== wanted) this.#fail(wrongMagic(magic, wanted, "request"));
    const request = this.#request;
    request.flags = readU16(bytes, at + 4);
    request.type = readU16(bytes, at + 6);
    request.cookieHigh = readU32(bytes, at + 8);
    request.cookieLow = readU32(bytes, at + 12);
    request.offset = readSize(bytes, at + 16);
    request.length = this.#extended ? readSize(bytes, at + 24) : readU32(bytes, at + 24);
    request.fault = NbdErrno.SUCCESS;
    const { type } = request;
    const hasPayload = this.#extended
      ? (request.flags & NbdCommandFlag.PAYLOAD_LEN) !== 0
      : type === NbdCommand.WRITE;
    if (request.offset === Number.POSITIVE_INFINITY) {
      const isWrite = type === NbdCommand.WRITE || type === NbdCommand.WRITE_ZEROES;
      request.fault = errorBeyondEnd(isWrite);
    }
    if (hasPayload) this.#beginPayload();
    else if (this.#extended) this.#checkWithoutPayload();
  }

  #beginPayload(): void {
    const request = this.#request;
    const { type, length } = request;
    if (length > this.#maxPayload) {
      this.#fail(this.#badPayload(`payload of ${length} bytes is longer than ${this.#maxPayload}`));
    }
    const isFilter = type === NbdCommand.BLOCK_STATUS;
    if (isFilter ? length > FILTER_MAX : type !== NbdCommand.WRITE) request.fault = NbdErrno.EINVAL;
    this.#payloadLength = length;
    if (request.fault === NbdErrno.SUCCESS) {
      this.#stage = this.#admit === undefined ? STAGE_PAYLOAD : STAGE_ADMISSION;
    } else {
      this.#stage = STAGE_SKIP;
      this.#input.skip(length);
    }
  }

  #checkWithoutPayload(): void {
    const request = this.#request;
    if (request.type === NbdCommand.WRITE) {
      this.#fail(this.#badPayload("write request lacks the flag PAYLOAD_LEN"));
    }
    if (request.length === Number.POSITIVE_INFINITY && request.fault === NbdErrno.SUCCESS) {
      request.fault = NbdErrno.EOVERFLOW;
    }
  }

  #badPayload(message: string): Error {
    const { cookieHigh, cookieLow, length, type } = this.#request;
    const details = { cookieHigh, cookieLow, type };
    return protocolError(message, "payload length", length, this.#maxPayload, details);
  }

  #fail(error: Error): never {
    this.#failure = error;
    throw error;
  }
}

/** Bytes of the longest filter of a BLOCK_STATUS request. */
const FILTER_MAX = 8 + 4 * NBD_LIMITS.queries;
