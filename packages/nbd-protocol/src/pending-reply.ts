import type { BlockError } from "@blocklayer/errors";
import { NbdChunk, NbdCommand, NbdCommandFlag, NbdErrno } from "./constants.ts";
import { NBD_LIMITS } from "./limits.ts";
import { protocolError } from "./malformed.ts";
import { RangeCover } from "./range-cover.ts";
import type { NbdErrorChunk, NbdStatus } from "./reply.ts";

/** A request that was sent, as far as its reply must fit it. */
export interface ExpectedReply<Tag> {
  /** See `NbdCommand`. */
  readonly type: number;
  /** The flags it was sent with; DF and REQ_ONE bound the reply. Default 0. */
  readonly flags?: number;
  /** Bytes. */
  readonly offset: number;
  /** Bytes of effect. */
  readonly length: number;
  /** Where the data of a READ goes; exactly `length` bytes. Required for READ of more than 0 bytes. */
  readonly buffer?: Uint8Array;
  /**
   * The selected contexts, each of which a BLOCK_STATUS must be answered for. Without it any are taken, at least
   * one.
   */
  readonly contextIds?: readonly number[];
  /** Handed back with the reply. */
  readonly tag: Tag;
}

const NO_STATUSES: readonly NbdStatus[] = [];

/** What is known so far of a request that was sent and not answered yet. */
export class PendingReply<Tag> {
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly expected: ExpectedReply<Tag>;
  /** `undefined` once the caller has taken it back. */
  buffer: Uint8Array | undefined;
  /** The first error of the reply. */
  error: NbdErrorChunk | undefined;
  statuses: readonly NbdStatus[] = NO_STATUSES;
  /** Made by the first piece: most requests have one or none. */
  #cover: RangeCover | undefined;
  #chunks: number = 0;

  constructor(cookieHigh: number, cookieLow: number, expected: ExpectedReply<Tag>) {
    this.cookieHigh = cookieHigh;
    this.cookieLow = cookieLow;
    this.expected = expected;
    this.buffer = expected.buffer;
  }

  get isRead(): boolean {
    return this.expected.type === NbdCommand.READ;
  }

  get end(): number {
    return this.expected.offset + this.expected.length;
  }

  fail(error: number, message: string, offset: number | undefined): void {
    // The first error is the one that people look for; the others are mostly its consequences.
    if (error !== NbdErrno.SUCCESS) this.error ??= { error, message, offset };
  }

  /** Accepts data or a hole of a READ: inside of the request, no byte twice, one chunk with DF. */
  takePiece(offset: number, length: number): void {
    const { expected } = this;
    if (offset < expected.offset || offset + length > this.end) {
      throw this.violation(
        `chunk of ${length} bytes at ${offset} lies outside of the request of ${expected.length} at ${expected.offset}`,
        "chunk range",
        offset,
        this.end,
      );
    }
    this.#chunks += 1;
    if (this.#chunks > 1 && ((expected.flags ?? 0) & NbdCommandFlag.DF) !== 0) {
      throw this.violation("read that must not be fragmented was", "chunk count", this.#chunks, 1);
    }
    this.#cover ??= new RangeCover();
    if (!this.#cover.add(offset, offset + length)) {
      throw this.violation(
        `chunk of ${length} bytes at ${offset} overlaps an earlier one`,
        "chunk range",
        offset,
      );
    }
    if (this.#cover.pieces > NBD_LIMITS.readPieces) {
      throw this.violation(
        `read comes in more than ${NBD_LIMITS.readPieces} separate pieces`,
        "piece count",
        this.#cover.pieces,
        NBD_LIMITS.readPieces,
      );
    }
  }

  /** Accepts the status of one context: selected, and not answered before. */
  takeStatus(status: NbdStatus): void {
    const { contextIds, flags } = this.expected;
    const { contextId } = status;
    if (contextIds !== undefined && !contextIds.includes(contextId)) {
      throw this.violation(
        `status of context ${contextId}, which was not selected`,
        "context id",
        contextId,
      );
    }
    const limit = contextIds?.length ?? NBD_LIMITS.queries;
    if (this.statuses.some((earlier) => earlier.contextId === contextId)) {
      throw this.violation(
        `status of context ${contextId} came twice`,
        "context id",
        contextId,
        limit,
      );
    }
    if (this.statuses.length >= limit) {
      throw this.violation(`more than ${limit} contexts`, "context count", limit + 1, limit);
    }
    if (((flags ?? 0) & NbdCommandFlag.REQ_ONE) !== 0 && status.extents.length > 1) {
      throw this.violation(
        `${status.extents.length} extents where one was asked for`,
        "extent count",
        status.extents.length,
        1,
      );
    }
    this.statuses = [...this.statuses, status];
  }

  /** Checks at the last chunk that a success is one: all of the data, all of the contexts. */
  checkComplete(): void {
    if (this.error !== undefined) return;
    const { type, offset, contextIds, length } = this.expected;
    if (type === NbdCommand.READ && !this.#isCovered()) {
      throw this.violation(
        `reply to read of ${length} bytes at ${offset} leaves bytes out`,
        "read coverage",
        this.#cover?.pieces ?? 0,
        1,
      );
    }
    const wanted = contextIds?.length ?? 1;
    if (type === NbdCommand.BLOCK_STATUS && this.statuses.length < wanted) {
      throw this.violation(
        `reply to block status has ${this.statuses.length} contexts of ${wanted}`,
        "context count",
        this.statuses.length,
        wanted,
      );
    }
  }

  #isCovered(): boolean {
    const { offset, length } = this.expected;
    return this.#cover === undefined ? length === 0 : this.#cover.isWhole(offset, this.end);
  }

  /** Checks the offset that an extended header repeats. */
  checkOffset(offset: number): void {
    if (offset === this.expected.offset) return;
    throw this.violation(
      `reply at ${offset} to a request at ${this.expected.offset}`,
      "reply offset",
      offset,
      this.expected.offset,
    );
  }

  /** Checks that a chunk of this kind may answer this command. */
  checkChunkType(type: number, extended: boolean): void {
    const isData = type === NbdChunk.OFFSET_DATA || type === NbdChunk.OFFSET_HOLE;
    const status = extended ? NbdChunk.BLOCK_STATUS_EXT : NbdChunk.BLOCK_STATUS;
    const isStatus = type === status && this.expected.type === NbdCommand.BLOCK_STATUS;
    if ((isData && this.isRead) || isStatus || type === NbdChunk.NONE) return;
    throw this.violation(
      `chunk of type ${type} does not answer command ${this.expected.type}`,
      "chunk type",
      type,
    );
  }

  violation(message: string, field: string, value: number, limit?: number): BlockError {
    const { cookieHigh, cookieLow } = this;
    return protocolError(message, field, value, limit, { cookieHigh, cookieLow });
  }
}
