import { completed, RequestFlag, type RequestOptions } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import {
  NbdCommand,
  NbdCommandFlag,
  NbdErrno,
  type NbdRequest,
  NbdSize,
  nbdErrorOfCode,
  writeSimpleReply,
} from "@blocklayer/nbd-protocol";
import type { BufferAccount } from "./buffer-budget.ts";
import type { BufferPool } from "./buffer-pool.ts";
import type { NbdExport, WritableExportBackend } from "./nbd-export.ts";
import type { ReplyPlace, ReplyQueue } from "./reply-queue.ts";
import type { Slab } from "./slab.ts";

const HEADER = NbdSize.SIMPLE_REPLY;

/** Longest READ whose data shares a slab with others, bytes. */
const SHARED_MAX = 64 * 1024;

const FUA: RequestOptions = { flags: RequestFlag.fua };
const PREFETCH: RequestOptions = { flags: RequestFlag.prefetch | RequestFlag.copyOnRead };

/** Counts of one connection. */
export interface RequestCounts {
  readonly requests: number;
  readonly errors: number;
  /** Bytes. */
  readonly bytesRead: number;
  /** Bytes. */
  readonly bytesWritten: number;
}

/** What the data of a WRITE lies in, to be kept until it has ended. */
export interface PayloadHold {
  /** The received bytes, if the data is a part of them. */
  readonly slab: Slab | undefined;
  /** The buffer that it was gathered in. */
  readonly buffer: Uint8Array | undefined;
  /** Bytes that were charged. */
  readonly charge: number;
}

/**
 * Watches every request, for histograms of time and size. Without one nothing is measured.
 *
 * Called on the data path: must be quick and must not throw.
 */
export interface RequestProbe {
  /**
   * A request begins.
   *
   * @param command - see `NbdCommand`
   * @param length - bytes that it is about
   * @returns a number that comes back at its end: the time, say
   */
  started(command: number, length: number): number;
  /**
   * Its reply is ready to be sent, or its client is gone.
   *
   * @param token - what `started` returned
   * @param error - the number on the wire, 0 for success
   */
  ended(token: number, error: number): void;
}

export interface RequestRunnerParts {
  readonly chosen: NbdExport;
  readonly replies: ReplyQueue;
  readonly account: BufferAccount;
  readonly pool: BufferPool;
  readonly probe: RequestProbe | undefined;
  /** A request that went on after its call has ended, and its reply is queued. */
  readonly settled: () => void;
  /** We have a defect. */
  readonly failed: (error: unknown) => void;
}

/**
 * Carries out the requests of one client that the rules let through, and queues their replies.
 *
 * One that ends within its call leaves nothing behind but its reply. Data is read straight into the reply and written
 * straight from what was received.
 *
 * @see spec/nbd.md section 3, the table of actions
 */
export class RequestRunner {
  readonly #parts: RequestRunnerParts;
  readonly #chosen: NbdExport;
  readonly #replies: ReplyQueue;
  readonly #probe: RequestProbe | undefined;
  #outstanding: number = 0;
  #executing: number = 0;
  #isClosed: boolean = false;
  #requests: number = 0;
  #errors: number = 0;
  #bytesRead: number = 0;
  #bytesWritten: number = 0;

  constructor(parts: RequestRunnerParts) {
    this.#parts = parts;
    this.#chosen = parts.chosen;
    this.#replies = parts.replies;
    this.#probe = parts.probe;
  }

  /** Requests whose reply was not taken by the transport yet. */
  get outstanding(): number {
    return this.#outstanding;
  }

  /** Requests that the backend has not finished. */
  get executing(): number {
    return this.#executing;
  }

  get counts(): RequestCounts {
    return {
      requests: this.#requests,
      errors: this.#errors,
      bytesRead: this.#bytesRead,
      bytesWritten: this.#bytesWritten,
    };
  }

  /** The connection is gone: what ends from now on is not answered. */
  close(): void {
    this.#isClosed = true;
  }

  /** Replies were taken. */
  taken(replies: number, charge: number): void {
    this.#outstanding -= replies;
    if (charge > 0) this.#parts.account.give(charge);
  }

  /** Answers a request without carrying it out. */
  refuse(request: NbdRequest, error: number): void {
    const token = this.#begin(request);
    this.#answer(error, request.cookieHigh, request.cookieLow, token);
  }

  /** Starts any request but a WRITE; the data of READ and CACHE is charged. */
  start(request: NbdRequest): void {
    const token = this.#begin(request);
    if (request.type === NbdCommand.READ) this.#startRead(request, token);
    else this.#startOther(request, token);
  }

  /** Starts a WRITE. */
  startWrite(request: NbdRequest, hold: PayloadHold): void {
    const token = this.#begin(request);
    const { offset, length, payload, cookieHigh, cookieLow } = request;
    const options = (request.flags & NbdCommandFlag.FUA) === 0 ? undefined : FUA;
    const done = this.#writer.write(offset, payload, options);
    if (done === completed) {
      this.#bytesWritten += length;
      this.drop(hold);
      this.#answer(NbdErrno.SUCCESS, cookieHigh, cookieLow, token);
      return;
    }
    if (hold.slab !== undefined) hold.slab.pins += 1;
    this.#await(done, (error) => {
      hold.slab?.unpin();
      this.drop(hold);
      if (error === NbdErrno.SUCCESS) this.#bytesWritten += length;
      this.#answer(withoutSupport(error), cookieHigh, cookieLow, token);
    });
  }

  /** Gives back what the data of a WRITE took. */
  drop(hold: PayloadHold): void {
    if (hold.buffer !== undefined) this.#parts.pool.give(hold.buffer);
    if (hold.charge > 0) this.#parts.account.give(hold.charge);
  }

  #begin({ type, length }: NbdRequest): number {
    this.#outstanding += 1;
    this.#requests += 1;
    return this.#probe === undefined ? 0 : this.#probe.started(type, length);
  }

  #startRead(request: NbdRequest, token: number): void {
    const { offset, length, cookieHigh, cookieLow } = request;
    const isPlain = (request.flags & NbdCommandFlag.FUA) === 0;
    if (length > SHARED_MAX || !isPlain) {
      this.#startLongRead(request, isPlain, token);
      return;
    }
    const replies = this.#replies;
    const at = replies.reserve(HEADER + length);
    const data = replies.bytes.subarray(at + HEADER, at + HEADER + length);
    const done = this.#chosen.backend.read(offset, data);
    if (done === completed) {
      writeSimpleReply(replies.bytes, at, NbdErrno.SUCCESS, cookieHigh, cookieLow);
      replies.finish(length);
      this.#readWell(length, token);
      return;
    }
    this.#awaitRead(done, replies.detach(at), request, token);
  }

  #startLongRead(request: NbdRequest, isPlain: boolean, token: number): void {
    const { offset, length, cookieHigh, cookieLow } = request;
    const { backend } = this.#chosen;
    const place = this.#replies.allocate(HEADER + length);
    const data = place.bytes.subarray(HEADER);
    const done = isPlain
      ? backend.read(offset, data)
      : backend.flush().then(() => backend.read(offset, data));
    if (done === completed) {
      writeSimpleReply(place.bytes, 0, NbdErrno.SUCCESS, cookieHigh, cookieLow);
      this.#replies.enqueue(place, HEADER + length, length);
      this.#readWell(length, token);
      return;
    }
    this.#awaitRead(done, place, request, token);
  }

  #awaitRead(done: Promise<void>, place: ReplyPlace, request: NbdRequest, token: number): void {
    const { length, cookieHigh, cookieLow } = request;
    this.#await(done, (failure) => {
      const error = withoutSupport(failure);
      const isGood = error === NbdErrno.SUCCESS;
      writeSimpleReply(place.bytes, 0, error, cookieHigh, cookieLow);
      if (isGood) this.#readWell(length, token);
      else this.#failed(error, token);
      this.#replies.enqueue(place, isGood ? HEADER + length : HEADER, length);
    });
  }

  #readWell(length: number, token: number): void {
    this.#bytesRead += length;
    this.#probe?.ended(token, NbdErrno.SUCCESS);
  }

  #failed(error: number, token: number): void {
    this.#errors += 1;
    this.#probe?.ended(token, error);
  }

  #startOther(request: NbdRequest, token: number): void {
    const { cookieHigh, cookieLow } = request;
    const isCache = request.type === NbdCommand.CACHE;
    const mayFailFast = (request.flags & NbdCommandFlag.FAST_ZERO) !== 0;
    const charge = isCache ? request.length : 0;
    const buffer = isCache ? this.#parts.pool.take(charge) : undefined;
    const done =
      buffer === undefined
        ? this.#carryOut(request)
        : this.#chosen.backend.read(request.offset, buffer.subarray(0, charge), PREFETCH);
    const end = (error: number): void => {
      this.drop({ slab: undefined, buffer, charge });
      this.#answer(mayFailFast ? error : withoutSupport(error), cookieHigh, cookieLow, token);
    };
    if (done === completed) end(NbdErrno.SUCCESS);
    else this.#await(done, end);
  }

  #carryOut({ type, flags, offset, length }: NbdRequest): Promise<void> {
    const { backend } = this.#chosen;
    if (type === NbdCommand.FLUSH) return backend.flush();
    if (type === NbdCommand.WRITE_ZEROES) {
      return this.#writer.writeZeroes(offset, length, { flags: zeroFlags(flags) });
    }
    const done = this.#writer.discard(offset, length);
    return (flags & NbdCommandFlag.FUA) === 0 ? done : done.then(() => backend.flush());
  }

  /** The rules let nothing that writes through to an export without one. */
  get #writer(): WritableExportBackend {
    return this.#chosen.writer as WritableExportBackend;
  }

  /** Counts a request that goes on after its call, and calls `end` with its error number. */
  #await(done: Promise<void>, end: (error: number) => void): void {
    this.#executing += 1;
    const settle = (error: number): void => {
      this.#executing -= 1;
      try {
        end(error);
        this.#parts.settled();
      } catch (failure) {
        this.#parts.failed(failure);
      }
    };
    done.then(
      () => settle(NbdErrno.SUCCESS),
      (error: unknown) => settle(errorNumber(error)),
    );
  }

  #answer(error: number, cookieHigh: number, cookieLow: number, token: number): void {
    if (error === NbdErrno.SUCCESS) this.#probe?.ended(token, error);
    else this.#failed(error, token);
    if (this.#isClosed) {
      this.#outstanding -= 1;
      return;
    }
    const at = this.#replies.reserve(HEADER);
    writeSimpleReply(this.#replies.bytes, at, error, cookieHigh, cookieLow);
    this.#replies.finish(0);
  }
}

function zeroFlags(flags: number): number {
  return (
    ((flags & NbdCommandFlag.NO_HOLE) === 0 ? RequestFlag.mayUnmap : 0) |
    ((flags & NbdCommandFlag.FAST_ZERO) === 0 ? 0 : RequestFlag.noFallback) |
    ((flags & NbdCommandFlag.FUA) === 0 ? 0 : RequestFlag.fua)
  );
}

/** "Not supported" is what a client learns about fast zeroes, and about nothing else: spec/nbd.md section 6. */
function withoutSupport(error: number): number {
  return error === NbdErrno.ENOTSUP ? NbdErrno.EINVAL : error;
}

function errorNumber(error: unknown): number {
  return error instanceof BlockError ? nbdErrorOfCode(error.code) : NbdErrno.EIO;
}
