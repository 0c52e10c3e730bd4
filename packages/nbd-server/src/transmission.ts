import {
  type ByteStream,
  NbdCommand,
  NbdErrno,
  type NbdRequest,
  RequestReader,
} from "@blocklayer/nbd-protocol";
import type { BufferAccount } from "./buffer-budget.ts";
import type { BufferPool } from "./buffer-pool.ts";
import type { Deadline } from "./deadline.ts";
import type { NbdExport } from "./nbd-export.ts";
import type { ReceiveMemory } from "./receive-memory.ts";
import type { ReplyQueue } from "./reply-queue.ts";
import { faultOf, type RequestRules } from "./request-rules.ts";
import {
  type PayloadHold,
  type RequestCounts,
  type RequestProbe,
  RequestRunner,
} from "./request-runner.ts";
import type { NbdServerLimits } from "./server-limits.ts";
import type { Slab } from "./slab.ts";

/** Requests and bytes of data after which other clients have their turn. */
const TURN_REQUESTS = 256;
const TURN_BYTES = 8 * 1024 * 1024;

/**
 * Bytes of data that are sent before the next request is started, and before the client has taken which none is: data
 * that is read long before it can be sent falls out of the processor's cache and is fetched twice.
 */
const AHEAD_BYTES = 1024 * 1024;

export interface TransmissionParts {
  readonly chosen: NbdExport;
  readonly stream: ByteStream;
  readonly replies: ReplyQueue;
  readonly receive: ReceiveMemory;
  readonly account: BufferAccount;
  readonly pool: BufferPool;
  readonly limits: NbdServerLimits;
  /** Set while data of a WRITE is waited for. */
  readonly arrival: Deadline;
  readonly probe: RequestProbe | undefined;
  /** Nothing follows, and every reply was taken. */
  readonly finished: () => void;
  /** The connection is gone, and the last request has ended. */
  readonly idle: () => void;
  /** What the client sent can not be understood, or we have a defect. */
  readonly failed: (error: unknown) => void;
}

/** Bytes of data that have to arrive in time, see `NbdServerLimits.payloadMs`. */
const ARRIVAL_STEP = 1024 * 1024;

/** Why the next request was not started. */
type Halt = "starved" | "full" | "turn over" | "goodbye";

/**
 * The transmission phase of one client: takes every request out of what was received, starts them all, and lets the
 * replies go in one burst. When a limit is reached the client is not read any more until replies were taken.
 *
 * @see spec/nbd.md section 3
 */
export class Transmission {
  readonly #parts: TransmissionParts;
  readonly #runner: RequestRunner;
  readonly #rules: RequestRules;
  readonly #reader: RequestReader;
  /** A request that waits for memory. It stays valid because the reader is not asked for another. */
  #stalled: NbdRequest | undefined;
  /** Data of a WRITE that was charged and has not been handed on. */
  #arriving: number = 0;
  /** The buffer that data which spans chunks is gathered in, and the part of it that the reader fills. */
  #gatherBuffer: Uint8Array | undefined;
  #gathered: Uint8Array | undefined;
  /** Bytes that arrived since the deadline was set; `undefined` when it is not. */
  #arrived: number | undefined;
  #isRefused: boolean = false;
  /** Keeps the memory of the chunk in the reader. */
  #chunkSlab: Slab | undefined;
  #isPaused: boolean = false;
  #isAdvancing: boolean = false;
  #isContinuing: boolean = false;
  #isStopping: boolean = false;
  #isGoodbye: boolean = false;
  #isHalted: boolean = false;
  #isClosed: boolean = false;
  #turnRequests: number = 0;
  #turnBytes: number = 0;
  readonly #continue = (): void => {
    this.#isContinuing = false;
    if (this.#isPaused) this.#advance();
  };

  constructor(parts: TransmissionParts) {
    const { chosen, limits } = parts;
    this.#parts = parts;
    this.#runner = new RequestRunner({ ...parts, settled: () => this.#settled() });
    this.#rules = { chosen, payloadMax: limits.payload, structured: false, extended: false };
    this.#reader = new RequestReader({
      extended: false,
      maxPayload: limits.payload,
      allocate: (length) => this.#gather(length),
      admit: (length) => this.#admit(length),
    });
  }

  /** Requests whose reply was not taken by the transport yet. */
  get inFlight(): number {
    return this.#runner.outstanding;
  }

  /** Whether the backend works on nothing. */
  get isIdle(): boolean {
    return this.#runner.executing === 0;
  }

  get counts(): RequestCounts {
    return this.#runner.counts;
  }

  /** Bytes arrived. */
  data(chunk: Uint8Array): void {
    this.#chunkSlab = this.#parts.receive.received(chunk);
    if (this.#arrived !== undefined) this.#arrived += chunk.length;
    this.#reader.push(chunk);
    this.#advance();
  }

  /** The client sends nothing more. */
  ended(): void {
    this.#isGoodbye = true;
    this.#checkFinished();
  }

  /** From here on requests are answered `ESHUTDOWN`, and the connection ends when nothing is in flight. */
  stop(): void {
    this.#isStopping = true;
    this.#checkFinished();
  }

  /** Starts nothing more, whatever has arrived: the connection is being cut. */
  halt(): void {
    this.#isHalted = true;
  }

  /** Memory that was refused may be there. */
  wake(): void {
    this.#continueSoon();
  }

  /** Replies were taken. */
  taken(replies: number, charge: number): void {
    this.#runner.taken(replies, charge);
    if (this.#isPaused) this.#advance();
    this.#checkFinished();
  }

  /** The connection is gone. What the backend still does ends by itself. */
  closed(): void {
    this.#isClosed = true;
    this.#isHalted = true;
    this.#runner.close();
    if (this.#arriving > 0) this.#parts.account.give(this.#arriving);
    this.#arriving = 0;
    this.#stalled = undefined;
    this.#releaseChunk();
  }

  #checkFinished(): void {
    if (this.#isClosed || this.#isAdvancing || this.#runner.outstanding > 0) return;
    if (!this.#isGoodbye && !this.#isStopping) return;
    // Requests that wait for memory are not answered after the end of the stream.
    this.#isHalted = true;
    this.#parts.finished();
  }

  #settled(): void {
    if (!this.#isClosed) this.#parts.replies.flushSoon();
    else if (this.isIdle) this.#parts.idle();
  }

  #continueSoon(): void {
    if (this.#isContinuing) return;
    this.#isContinuing = true;
    this.#parts.stream.soon(this.#continue);
  }

  #advance(): void {
    if (this.#isAdvancing || this.#isHalted || this.#isGoodbye) return;
    this.#isAdvancing = true;
    this.#turnRequests = TURN_REQUESTS;
    this.#turnBytes = TURN_BYTES;
    try {
      this.#work();
    } catch (error) {
      this.#parts.failed(error);
    } finally {
      this.#isAdvancing = false;
    }
    this.#watchArrival();
    this.#checkFinished();
  }

  /** Gives a client that has begun a WRITE its time for the next piece of data. */
  #watchArrival(): void {
    const { arrival, limits } = this.#parts;
    if (this.#gathered === undefined || this.#isPaused) {
      if (this.#arrived !== undefined) arrival.clear();
      this.#arrived = undefined;
    } else if (this.#arrived === undefined || this.#arrived >= ARRIVAL_STEP) {
      arrival.set(limits.payloadMs);
      this.#arrived = 0;
    }
  }

  /** Works on what was received until it is used up or a limit is reached. */
  #work(): void {
    for (;;) {
      const halt = this.#startRequests();
      const before = this.#runner.outstanding;
      this.#parts.replies.flush();
      // The flush may have freed what was missing.
      if (halt === "full" && this.#runner.outstanding < before) continue;
      if (halt === "turn over") this.#continueSoon();
      this.#setPaused(halt !== "starved");
      return;
    }
  }

  #setPaused(isPaused: boolean): void {
    if (!isPaused) this.#releaseChunk();
    if (isPaused === this.#isPaused) return;
    this.#isPaused = isPaused;
    if (isPaused) this.#parts.stream.pause();
    else this.#parts.stream.resume();
  }

  #releaseChunk(): void {
    this.#chunkSlab?.unpin();
    this.#chunkSlab = undefined;
  }

  #startRequests(): Halt {
    const { requests: requestMax } = this.#parts.limits;
    while (this.#turnRequests > 0 && this.#turnBytes > 0) {
      if (this.#runner.outstanding >= requestMax || this.#isFarAhead()) return "full";
      const request = this.#stalled ?? this.#next();
      if (request === undefined) return this.#isRefused ? "full" : "starved";
      if (request.type === NbdCommand.DISC) {
        this.#isGoodbye = true;
        return "goodbye";
      }
      if (!this.#start(request)) {
        this.#stalled = request;
        return "full";
      }
      this.#stalled = undefined;
      this.#turnRequests -= 1;
    }
    return "turn over";
  }

  #isFarAhead(): boolean {
    const { replies } = this.#parts;
    if (replies.unread < AHEAD_BYTES) return false;
    replies.flush();
    return replies.isWaiting && replies.unread >= AHEAD_BYTES;
  }

  #next(): NbdRequest | undefined {
    this.#isRefused = false;
    return this.#reader.next();
  }

  /** Starts a request. @returns `false` when there is no memory for it now */
  #start(request: NbdRequest): boolean {
    const { type, length } = request;
    const fault = this.#isStopping ? NbdErrno.ESHUTDOWN : faultOf(request, this.#rules);
    const isGood = fault === NbdErrno.SUCCESS;
    if (type === NbdCommand.WRITE) {
      const hold = this.#takePayload(request);
      this.#turnBytes -= length;
      if (isGood) {
        this.#runner.startWrite(request, hold);
        return true;
      }
      this.#runner.drop(hold);
    }
    if (!isGood) {
      this.#runner.refuse(request, fault);
      return true;
    }
    if (type === NbdCommand.READ || type === NbdCommand.CACHE) {
      if (!this.#parts.account.take(length)) return false;
      this.#turnBytes -= length;
    }
    this.#runner.start(request);
    return true;
  }

  /** The reader asks before it takes memory for data. */
  #admit(length: number): boolean {
    this.#isRefused = !this.#parts.account.take(length);
    if (!this.#isRefused) this.#arriving = length;
    return !this.#isRefused;
  }

  #gather(length: number): Uint8Array {
    const buffer = this.#parts.pool.take(length);
    const gathered = buffer.subarray(0, length);
    this.#gatherBuffer = buffer;
    this.#gathered = gathered;
    return gathered;
  }

  /** Takes over the data of a WRITE that the reader has delivered, with what was charged for it. */
  #takePayload(request: NbdRequest): PayloadHold {
    const isGathered = request.payload === this.#gathered;
    const buffer = isGathered ? this.#gatherBuffer : undefined;
    const charge = this.#arriving;
    this.#arriving = 0;
    if (isGathered) {
      this.#gathered = undefined;
      this.#gatherBuffer = undefined;
    }
    return { slab: isGathered ? undefined : this.#chunkSlab, buffer, charge };
  }
}
