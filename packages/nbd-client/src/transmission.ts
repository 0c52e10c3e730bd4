import type { Env } from "@blocklayer/env";
import { BlockError, textOfErrno, toBlockError } from "@blocklayer/errors";
import {
  type ByteReceiver,
  type ByteStream,
  codeOfNbdError,
  NbdCommand,
  NbdErrno,
  type NbdReply,
  NbdSize,
  ReplyReader,
  writeRequest,
} from "@blocklayer/nbd-protocol";
import type { ClientRequest } from "./client-request.ts";
import { switchedOff } from "./deadline.ts";
import { RequestLine } from "./request-line.ts";
import { SlotPool } from "./slot-pool.ts";

/** Bytes of a read; every byte is copied from there to where it belongs, once. */
const BUFFER_SIZE = 256 * 1024;

/** What the server may take to close after the goodbye, before the connection is cut. */
const GOODBYE_TIMEOUT_MS = 10_000;

/** Told of what concerns more than one request. */
export interface TransmissionOwner {
  /** The server answered; the request's promise is about to settle. */
  answered(request: ClientRequest, isSuccess: boolean): void;
  /**
   * The connection is gone, not by `finish`. Called once. The requests are the owner's to settle or to send again.
   *
   * @param unanswered - those with a `burst` of 0 or more may have been carried out
   * @param waiting - never sent, in order
   */
  lost(
    error: BlockError,
    unanswered: readonly ClientRequest[],
    waiting: readonly ClientRequest[],
  ): void;
}

export interface TransmissionParts {
  readonly stream: ByteStream;
  readonly env: Env;
  readonly owner: TransmissionOwner;
  /** Requests in flight at most; others wait. */
  readonly requestsMax: number;
  /** The connection is given up when nothing moved for so long while requests are in flight; 0 for never. */
  readonly requestTimeoutMs: number;
}

/**
 * The transmission phase of one connection: many requests in flight, answered in any order.
 *
 * Requests of one turn leave in one burst, headers from a slab that is used again and payloads from where the caller
 * has them. A request ends only when the stream does not need its payload any more, even if the server answers
 * sooner. An error that the server reports is the request's own; whatever it may not send ends the connection.
 *
 * @see spec/nbd.md sections 3, 4 and 10
 */
export class Transmission implements ByteReceiver {
  readonly #parts: TransmissionParts;
  readonly #reader: ReplyReader<ClientRequest> = new ReplyReader({ mode: "simple" });
  readonly #memory: Uint8Array = new Uint8Array(BUFFER_SIZE);
  readonly #slots: SlotPool;
  readonly #headers: Uint8Array;
  readonly #line: RequestLine = new RequestLine();
  /** In flight and changing content, in the order of sending. */
  readonly #changes = new Set<ClientRequest>();
  readonly #stopTimers: AbortController = new AbortController();
  /** Given a place, to be sent with the next burst. */
  #outgoing: ClientRequest[] = [];
  /** Answered while their payload was still in use. */
  #held: (() => void)[] = [];
  /** Answered in a way that leaves them to the owner: the server shuts down, or is not to be believed. */
  readonly #refused: ClientRequest[] = [];
  #serial: number = 0;
  #burst: number = 0;
  #isScheduled: boolean = false;
  #isBlocked: boolean = false;
  #isWatched: boolean = false;
  #isFinishing: boolean = false;
  #isGoodbyeSent: boolean = false;
  /** Counts whatever moves. */
  #progress: number = 0;
  #failure: BlockError | undefined;
  #finished: Promise<void> | undefined;
  #resolveFinished: () => void = switchedOff;
  #lastRequest: () => ClientRequest | undefined = noRequest;
  readonly #flush = (): void => this.#sendBurst();

  constructor(parts: TransmissionParts) {
    this.#parts = parts;
    this.#slots = new SlotPool(parts.requestsMax);
    this.#headers = new Uint8Array((parts.requestsMax + 1) * NbdSize.REQUEST);
  }

  /** Why the connection ended, `undefined` as long as it did not. */
  get failure(): BlockError | undefined {
    return this.#failure;
  }

  /** Requests that were given a place and not answered. */
  get inFlight(): number {
    return this.#reader.pending;
  }

  /** Sends the request, now or when there is a place. A signal counts until then. */
  submit(request: ClientRequest): void {
    if (this.#failure !== undefined || this.#isFinishing) {
      request.fail(request.error("ESHUTDOWN", "the connection was closed", this.#failure));
    } else if (this.#slots.isEmpty || this.#line.size > 0 || this.#refused.length > 0) {
      this.#line.push(request);
    } else if (request.signal?.aborted === true) {
      request.fail(request.signal.reason);
    } else {
      this.#begin(request);
    }
  }

  /**
   * Disconnects softly: waits until everything that was submitted is answered, tells the server, and waits until it
   * has closed too, at most 10 seconds.
   *
   * @param lastRequest - asked for one more request when everything was answered; it is answered before the goodbye
   */
  finish(lastRequest: () => ClientRequest | undefined = noRequest): Promise<void> {
    this.#finished ??= this.#finish(lastRequest);
    return this.#finished;
  }

  /** Cuts the connection. */
  abort(error: BlockError): void {
    this.#lose(error);
  }

  buffer(): Uint8Array {
    return this.#memory;
  }

  data(chunk: Uint8Array): void {
    if (this.#failure !== undefined) return;
    this.#progress += 1;
    try {
      this.#reader.push(chunk);
      for (let reply = this.#reader.next(); reply !== undefined; reply = this.#reader.next()) {
        this.#answer(reply);
      }
    } catch (error) {
      this.#lose(toBlockError(error, "reply failed"));
      return;
    }
    this.#advance();
  }

  drained(): void {
    if (this.#failure !== undefined) return;
    this.#progress += 1;
    this.#isBlocked = false;
    const held = this.#held;
    this.#held = [];
    for (const settle of held) settle();
    this.#sendBurst();
    this.#advance();
  }

  ended(): void {
    if (this.#isGoodbyeSent) this.#end();
    else this.#lose(this.#closedError(undefined));
  }

  closed(error?: unknown): void {
    if (this.#isGoodbyeSent) this.#end();
    else this.#lose(this.#closedError(error));
  }

  #begin(request: ClientRequest): void {
    const { command, flags, offset, length, buffer } = request;
    this.#serial = (this.#serial + 1) % 2 ** 32;
    request.slot = this.#slots.take();
    request.serial = this.#serial;
    request.burst = -1;
    const expected = { type: command, flags, offset, length, tag: request };
    this.#reader.expect(
      request.serial,
      request.slot,
      buffer === undefined ? expected : { ...expected, buffer },
    );
    if (request.isChange) this.#changes.add(request);
    this.#outgoing.push(request);
    if (!this.#isWatched && this.#parts.requestTimeoutMs > 0) this.#startWatch();
    if (this.#isScheduled || this.#isBlocked) return;
    this.#isScheduled = true;
    this.#parts.stream.soon(this.#flush);
  }

  /** Sends everything that has a place: neighbouring headers as one chunk, payloads as they are. */
  #sendBurst(): void {
    this.#isScheduled = false;
    if (this.#isBlocked || this.#failure !== undefined || this.#outgoing.length === 0) return;
    const chunks: Uint8Array[] = [];
    const headers = this.#headers;
    let [start, position] = [0, 0];
    for (const request of this.#outgoing) {
      const { command, flags, serial, slot, offset, length } = request;
      position = writeRequest(headers, position, command, flags, serial, slot, offset, length);
      request.burst = this.#burst;
      if (request.payload.length === 0) continue;
      chunks.push(headers.subarray(start, position), ...request.payload);
      start = position;
    }
    if (start < position) chunks.push(headers.subarray(start, position));
    this.#outgoing = [];
    this.#isBlocked = !this.#parts.stream.write(chunks);
    this.#burst += 1;
  }

  #answer(reply: NbdReply<ClientRequest>): void {
    const request = reply.tag;
    if (request.burst < 0) {
      this.#refused.push(request);
      throw new BlockError("EPROTO", "reply to a request that was not sent yet", {
        operation: "nbd",
        field: "cookie",
        value: request.slot,
      });
    }
    this.#slots.give(request.slot);
    if (request.isChange) this.#markOvertaken(request);
    if (reply.error === NbdErrno.ESHUTDOWN) {
      this.#refused.push(request);
      return;
    }
    const isInUse = this.#isBlocked && request.burst === this.#burst - 1;
    if (isInUse && request.payload.length > 0) {
      this.#held.push(() => this.#settle(request, reply));
    } else {
      this.#settle(request, reply);
    }
  }

  #settle(request: ClientRequest, reply: NbdReply<ClientRequest>): void {
    const isSuccess = reply.error === NbdErrno.SUCCESS;
    this.#parts.owner.answered(request, isSuccess);
    if (isSuccess) {
      request.succeed();
      return;
    }
    const code = codeOfNbdError(reply.error);
    request.fail(request.error(code, reply.message === "" ? textOfErrno(code) : reply.message));
  }

  /** Marks changes that were sent before this one, overlap it, and have no answer yet. */
  #markOvertaken(request: ClientRequest): void {
    for (const earlier of this.#changes) {
      if (earlier === request) break;
      if (earlier.overlaps(request)) earlier.isOvertaken = true;
    }
    this.#changes.delete(request);
  }

  /** Fills free places, or goes on to the end that is wanted. */
  #advance(): void {
    if (this.#failure !== undefined) return;
    if (this.#refused.length > 0) {
      if (this.#reader.pending === 0) this.#leaveServer();
      return;
    }
    while (!this.#slots.isEmpty) {
      const request = this.#line.shift();
      if (request === undefined) break;
      this.#begin(request);
    }
    const isBusy = this.#reader.pending > 0 || this.#isBlocked;
    if (this.#isFinishing && !isBusy && !this.#isGoodbyeSent) this.#comeToEnd();
  }

  #comeToEnd(): void {
    const last = this.#lastRequest();
    this.#lastRequest = noRequest;
    if (last !== undefined) {
      this.#begin(last);
      return;
    }
    this.#sayGoodbye();
    const { clock } = this.#parts.env;
    clock.sleep(GOODBYE_TIMEOUT_MS, this.#stopTimers.signal).then(() => this.#end(), switchedOff);
  }

  /** The server asked for an end by ESHUTDOWN, and everything else was answered. */
  #leaveServer(): void {
    if (!this.#isBlocked) this.#sayGoodbye();
    this.#lose(
      new BlockError("ESHUTDOWN", "server is shutting down", {
        operation: "nbd",
        peer: this.#parts.stream.peer,
      }),
    );
  }

  #sayGoodbye(): void {
    this.#isGoodbyeSent = true;
    const end = writeRequest(this.#headers, 0, NbdCommand.DISC, 0, 0, 0, 0, 0);
    this.#parts.stream.write([this.#headers.subarray(0, end)]);
    this.#parts.stream.end();
  }

  #finish(lastRequest: () => ClientRequest | undefined): Promise<void> {
    if (this.#failure !== undefined) return Promise.resolve();
    this.#lastRequest = lastRequest;
    const ended = new Promise<void>((resolve) => {
      this.#resolveFinished = resolve;
    });
    this.#isFinishing = true;
    this.#advance();
    return ended;
  }

  /** The end that was wanted. */
  #end(): void {
    if (this.#failure !== undefined) return;
    this.#failure = new BlockError("ESHUTDOWN", "the connection was closed", { operation: "nbd" });
    this.#release();
  }

  /** The end that nobody wanted. */
  #lose(error: BlockError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#release();
    // Cutting the stream has freed the payloads.
    for (const settle of this.#held) settle();
    this.#held = [];
    const unanswered = [...this.#refused, ...this.#reader.abandon()];
    this.#parts.owner.lost(error, unanswered, this.#line.takeAll());
  }

  #release(): void {
    this.#stopTimers.abort();
    this.#outgoing = [];
    this.#changes.clear();
    this.#parts.stream.destroy();
    this.#resolveFinished();
  }

  #startWatch(): void {
    this.#isWatched = true;
    const { env, requestTimeoutMs } = this.#parts;
    const before = this.#progress;
    env.clock.sleep(requestTimeoutMs, this.#stopTimers.signal).then(() => {
      this.#isWatched = false;
      if (this.#failure !== undefined || this.#reader.pending === 0) return;
      if (this.#progress === before) this.#lose(this.#timeoutError(requestTimeoutMs));
      else this.#startWatch();
    }, switchedOff);
  }

  #timeoutError(delayMs: number): BlockError {
    return new BlockError(
      "ETIMEDOUT",
      `server did not answer ${this.inFlight} requests for ${delayMs / 1000} s`,
      { operation: "nbd", peer: this.#parts.stream.peer },
    );
  }

  #closedError(cause: unknown): BlockError {
    const reason = cause instanceof Error ? `: ${cause.message}` : "";
    return new BlockError(
      "ECONNRESET",
      `server closed the connection with ${this.inFlight} requests in flight${reason}`,
      { operation: "nbd", peer: this.#parts.stream.peer },
      { cause },
    );
  }
}

function noRequest(): undefined {
  return undefined;
}
