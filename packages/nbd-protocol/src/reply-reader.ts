import { assert, BlockError } from "@blocklayer/errors";
import { readU16, readU32 } from "@blocklayer/offsets";
import {
  isErrorChunk,
  NbdChunk,
  NbdChunkFlag,
  NbdCommand,
  NbdErrno,
  NbdMagic,
} from "./constants.ts";
import { allocateBytes, FrameInput } from "./frame-input.ts";
import { NBD_LIMITS } from "./limits.ts";
import { protocolError } from "./malformed.ts";
import { type ExpectedReply, PendingReply } from "./pending-reply.ts";
import {
  decodeErrorChunk,
  decodeOffsetHole,
  decodeStatus,
  type NbdStatus,
  statusLength,
} from "./reply.ts";
import { readSize, wrongMagic } from "./request.ts";

/** Which replies were negotiated: simple only, structured or simple, extended only. */
export type ReplyMode = "simple" | "structured" | "extended";

export interface ReplyReaderOptions {
  readonly mode: ReplyMode;
  /** Extents of one block status chunk. Default 2^20. */
  readonly maxExtents?: number;
}

/** A whole reply. */
export interface NbdReply<Tag> {
  readonly cookieHigh: number;
  readonly cookieLow: number;
  /** The first error number of the reply, 0 for success; `codeOfNbdError` names it. */
  readonly error: number;
  /** The message that came with the error, else empty. */
  readonly message: string;
  /** Where it failed, bytes, when the server told. */
  readonly errorOffset: number | undefined;
  /** One entry for each context, in the order of arrival. */
  readonly statuses: readonly NbdStatus[];
  readonly tag: Tag;
}

type Stage = "magic" | "header" | "data-offset" | "data" | "payload";

const MAGIC = 4;
/** Bytes of the headers that follow the magic number. */
const REST = { simple: 12, structured: 16, extended: 28 } as const;

/**
 * Reads the replies of the transmission phase from chunks of any size, for a client.
 *
 * Tell it each request with `expect` before it is sent; push a chunk, and call `next` until it returns `undefined`.
 * A reply is returned when its last chunk is there. Data of a READ is copied once, from the received chunk to its
 * place in the buffer given to `expect`; so the memory of chunks may be used again after `next` has returned
 * `undefined`.
 *
 * A reply that does not fit its request (unknown cookie, data outside of it, a byte twice or never, a context that was
 * not selected, …) makes `next` throw `EPROTO`, now and at every later call: the connection is to be closed, and
 * `abandon` gives back what was not answered.
 *
 * In structured mode a simple error reply to READ or BLOCK_STATUS is taken, because nothing is ambiguous about
 * it; a simple success is not. Extents may reach beyond the request; clipping is for the caller.
 *
 * @see spec/nbd.md sections 4 and 11
 */
export class ReplyReader<Tag> {
  readonly #input: FrameInput = new FrameInput(REST.extended);
  readonly #mode: ReplyMode;
  readonly #maxExtents: number;
  /** By the lower half of the cookie. */
  readonly #pending = new Map<number, PendingReply<Tag>>();
  #stage: Stage = "magic";
  #headerKind: ReplyMode = "simple";
  #current: PendingReply<Tag> | undefined;
  #chunkType: number = 0;
  #isLast: boolean = false;
  #length: number = 0;
  /** Position in the buffer of the READ. */
  #dataAt: number = 0;
  #dataLeft: number = 0;
  #failure: unknown;

  constructor(options: ReplyReaderOptions) {
    this.#mode = options.mode;
    this.#maxExtents = options.maxExtents ?? NBD_LIMITS.statusExtents;
  }

  /** Number of requests that are not answered yet. */
  get pending(): number {
    return this.#pending.size;
  }

  /**
   * Announces a request that is about to be sent.
   *
   * @param cookieHigh - upper half; the reply must carry it too
   * @param cookieLow - lower half, by which requests are told apart: not that of another one in flight
   * @throws Error (assertion) the lower half is in flight; RangeError the buffer of a READ has another length
   */
  expect(cookieHigh: number, cookieLow: number, expected: ExpectedReply<Tag>): void {
    assert(!this.#pending.has(cookieLow), "the lower half of a cookie in flight is not used again");
    const isRead = expected.type === NbdCommand.READ;
    if (isRead && (expected.buffer?.length ?? 0) !== expected.length) {
      throw new RangeError(
        `buffer of ${expected.buffer?.length ?? 0} bytes for a read of ${expected.length}`,
      );
    }
    this.#pending.set(cookieLow, new PendingReply(cookieHigh, cookieLow, expected));
  }

  /**
   * Takes the buffer of a READ back: its reply is still read and checked, and its data dropped.
   *
   * @returns `false` when no such request is in flight
   */
  releaseBuffer(cookieLow: number): boolean {
    const pending = this.#pending.get(cookieLow);
    if (pending === undefined) return false;
    pending.buffer = undefined;
    return true;
  }

  /** Forgets every request that is not answered, in the order of sending, and returns their tags. */
  abandon(): Tag[] {
    const tags = [...this.#pending.values()].map(({ expected }) => expected.tag);
    this.#pending.clear();
    return tags;
  }

  /** Adds a chunk. The one before must have been read until `next` returned `undefined`. */
  push(chunk: Uint8Array): void {
    this.#input.push(chunk);
  }

  /**
   * Returns the next whole reply, `undefined` when more bytes are needed.
   *
   * @throws BlockError `EPROTO` the server broke the protocol; `context` names field, value, limit and cookie
   */
  next(): NbdReply<Tag> | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      return this.#next();
    } catch (error) {
      this.#failure = asProtocolError(error);
      throw this.#failure;
    }
  }

  #next(): NbdReply<Tag> | undefined {
    for (;;) {
      if (!this.#step()) return undefined;
      if (this.#stage !== "magic") continue;
      // A chunk ends here.
      const current = this.#current;
      this.#current = undefined;
      if (this.#isLast && current !== undefined) return this.#finish(current);
    }
  }

  /** Moves one stage on; `false` when more bytes are needed. */
  #step(): boolean {
    switch (this.#stage) {
      case "magic":
        if (!this.#input.takeHeader(MAGIC)) return false;
        this.#headerKind = this.#kindOf(readU32(this.#input.header, this.#input.headerAt));
        this.#stage = "header";
        return true;
      case "header":
        if (!this.#input.takeHeader(REST[this.#headerKind])) return false;
        if (this.#headerKind === "simple") this.#readSimpleHeader();
        else this.#readChunkHeader(this.#headerKind === "extended");
        return true;
      case "data-offset":
        if (!this.#input.takeHeader(8)) return false;
        this.#beginData(readSize(this.#input.header, this.#input.headerAt), this.#length - 8);
        return true;
      case "data":
        return this.#readData();
      case "payload":
        return this.#readPayload();
    }
  }

  #kindOf(magic: number): ReplyMode {
    if (this.#mode === "extended") {
      if (magic === NbdMagic.EXTENDED_REPLY) return "extended";
      throw wrongMagic(magic, NbdMagic.EXTENDED_REPLY, "extended reply");
    }
    if (magic === NbdMagic.SIMPLE_REPLY) return "simple";
    if (this.#mode === "structured" && magic === NbdMagic.STRUCTURED_REPLY) return "structured";
    throw wrongMagic(magic, NbdMagic.SIMPLE_REPLY, "reply");
  }

  #find(cookieHigh: number, cookieLow: number): PendingReply<Tag> {
    const pending = this.#pending.get(cookieLow);
    if (pending !== undefined && pending.cookieHigh === cookieHigh) return pending;
    const details = { cookieHigh, cookieLow };
    throw protocolError("reply carries an unknown cookie", "cookie", cookieLow, undefined, details);
  }

  #readSimpleHeader(): void {
    const { header, headerAt } = this.#input;
    const error = readU32(header, headerAt);
    const current = this.#find(readU32(header, headerAt + 4), readU32(header, headerAt + 8));
    this.#current = current;
    this.#isLast = true;
    this.#stage = "magic";
    current.fail(error, "", undefined);
    if (error !== NbdErrno.SUCCESS) return;
    const { type, offset, length } = current.expected;
    const isChunked = current.isRead || type === NbdCommand.BLOCK_STATUS;
    if (this.#mode === "structured" && isChunked) {
      throw current.violation(`simple reply does not answer command ${type}`, "command", type);
    }
    if (current.isRead && length > 0) this.#beginData(offset, length);
  }

  #readChunkHeader(extended: boolean): void {
    const { header, headerAt } = this.#input;
    const current = this.#find(readU32(header, headerAt + 4), readU32(header, headerAt + 8));
    const type = readU16(header, headerAt + 2);
    this.#current = current;
    this.#isLast = (readU16(header, headerAt) & NbdChunkFlag.DONE) !== 0;
    this.#chunkType = type;
    if (extended) {
      current.checkOffset(readSize(header, headerAt + 12));
      this.#length = readSize(header, headerAt + 20);
    } else {
      this.#length = readU32(header, headerAt + 12);
    }
    if (!isErrorChunk(type)) current.checkChunkType(type, extended);
    this.#checkLength(current, extended);
    if (type === NbdChunk.NONE) this.#stage = "magic";
    else this.#stage = type === NbdChunk.OFFSET_DATA ? "data-offset" : "payload";
  }

  /** Checks the length of a payload before memory is taken for it. */
  #checkLength(current: PendingReply<Tag>, extended: boolean): void {
    const [minimum, maximum] = this.#bounds(current, extended);
    const length = this.#length;
    if (length < minimum || length > maximum) {
      throw current.violation(
        `chunk of type ${this.#chunkType} has ${length} bytes, not ${minimum} to ${maximum}`,
        "chunk length",
        length,
        length < minimum ? minimum : maximum,
      );
    }
    if (this.#chunkType === NbdChunk.NONE && !this.#isLast) {
      throw current.violation("chunk of type 0 is not the last", "chunk flags", 0, 1);
    }
  }

  #bounds(current: PendingReply<Tag>, extended: boolean): readonly [number, number] {
    switch (this.#chunkType) {
      case NbdChunk.NONE:
        return [0, 0];
      case NbdChunk.OFFSET_DATA:
        return [9, 8 + current.expected.length];
      case NbdChunk.OFFSET_HOLE:
        return [12, 12];
      case NbdChunk.BLOCK_STATUS:
      case NbdChunk.BLOCK_STATUS_EXT:
        return [statusLength(1, extended), statusLength(this.#maxExtents, extended)];
      default:
        return [6, ERROR_MAX];
    }
  }

  #beginData(offset: number, length: number): void {
    const current = this.#current;
    assert(current !== undefined, "data belongs to a request");
    current.takePiece(offset, length);
    this.#dataAt = offset - current.expected.offset;
    this.#dataLeft = length;
    this.#stage = "data";
  }

  #readData(): boolean {
    const buffer = this.#current?.buffer;
    const count = Math.min(this.#dataLeft, this.#input.available);
    if (buffer === undefined) {
      this.#input.skip(count);
      this.#input.skipped();
    } else {
      this.#input.copyTo(buffer, this.#dataAt, count);
    }
    this.#dataAt += count;
    this.#dataLeft -= count;
    if (this.#dataLeft > 0) return false;
    this.#stage = "magic";
    return true;
  }

  #readPayload(): boolean {
    // Nothing decoded refers to the payload, so a part of the chunk will do even if its memory is used again.
    const payload = this.#input.takePayload(this.#length, false, allocateBytes);
    if (payload === undefined) return false;
    const current = this.#current;
    assert(current !== undefined, "a payload belongs to a request");
    this.#stage = "magic";
    if (isErrorChunk(this.#chunkType)) {
      const { error, message, offset } = decodeErrorChunk(this.#chunkType, payload);
      current.fail(error, message, offset);
    } else if (this.#chunkType === NbdChunk.OFFSET_HOLE) {
      const hole = decodeOffsetHole(payload);
      current.takePiece(hole.offset, hole.length);
      const at = hole.offset - current.expected.offset;
      current.buffer?.fill(0, at, at + hole.length);
    } else {
      current.takeStatus(decodeStatus(payload, this.#mode === "extended", this.#maxExtents));
    }
    return true;
  }

  #finish(current: PendingReply<Tag>): NbdReply<Tag> {
    current.checkComplete();
    this.#pending.delete(current.cookieLow);
    return {
      cookieHigh: current.cookieHigh,
      cookieLow: current.cookieLow,
      error: current.error?.error ?? NbdErrno.SUCCESS,
      message: current.error?.message ?? "",
      errorOffset: current.error?.offset,
      statuses: current.statuses,
      tag: current.expected.tag,
    };
  }
}

/** Bytes of the longest error chunk. */
const ERROR_MAX = 6 + NBD_LIMITS.string + 8;

/** A payload that can not be decoded is, coming from a server, a breach of the protocol. */
function asProtocolError(error: unknown): unknown {
  if (!(error instanceof BlockError) || error.code === "EPROTO") return error;
  return new BlockError("EPROTO", error.message, error.context, { cause: error });
}
