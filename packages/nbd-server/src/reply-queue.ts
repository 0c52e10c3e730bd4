import { assert } from "@blocklayer/errors";
import type { ByteStream } from "@blocklayer/nbd-protocol";
import type { BufferAccount } from "./buffer-budget.ts";
import type { BufferPool } from "./buffer-pool.ts";
import type { Deadline } from "./deadline.ts";
import { Slab } from "./slab.ts";

/** Bytes that are handed to the transport at once at most; the measure of a client's progress. */
const BATCH_LENGTH = 1024 * 1024;

/** Part of a buffer that a reply will be in, when its request has ended. */
export interface ReplyPlace {
  /** Header and data. */
  readonly bytes: Uint8Array;
  /** Where it lies, pinned; or the buffer of its own that goes back to the pool. */
  readonly slab: Slab | undefined;
  readonly buffer: Uint8Array | undefined;
}

/** Replies that wait to be sent, one after the other in one piece of memory. */
interface Chunk {
  bytes: Uint8Array;
  readonly slab: Slab | undefined;
  readonly buffer: Uint8Array | undefined;
  readonly replies: number;
  /** Bytes of data that the account was charged for. */
  readonly charge: number;
  /** Bytes that count as unread. */
  readonly weight: number;
}

export interface ReplyQueueOptions {
  readonly stream: ByteStream;
  readonly pool: BufferPool;
  readonly account: BufferAccount;
  /** Bytes of data that may wait. */
  readonly unreadBytes: number;
  /** Milliseconds for a batch. */
  readonly unreadMs: number;
  /** Set while a batch waits for the client. */
  readonly deadline: Deadline;
  /** The transport has taken replies: their number and the bytes of data that were charged for them. */
  readonly taken: (replies: number, charge: number) => void;
  /** The client leaves too much unread. */
  readonly overflow: () => void;
}

/**
 * What is to be sent to one client, in as few writes as possible.
 *
 * Replies are laid one after the other into a slab, and data is read straight into its place there:
 *
 * ```text
 * slab  | run: replies that are ready    | place of a slow request | run: ready ...   | free
 *       ^ sent as one piece at the flush   ^ sent alone when it ends                  ^ end
 * ```
 *
 * At most one batch is with the transport; what becomes ready meanwhile makes the next one. A slab is used from its
 * beginning again as soon as nothing in it is needed.
 */
export class ReplyQueue {
  readonly #options: ReplyQueueOptions;
  readonly #stream: ByteStream;
  #slab: Slab | undefined;
  #runStart: number = 0;
  #end: number = 0;
  #runReplies: number = 0;
  #runCharge: number = 0;
  #pending: Chunk[] = [];
  readonly #sending: Chunk[] = [];
  readonly #batch: Uint8Array[] = [];
  #unread: number = 0;
  #isWaiting: boolean = false;
  #isFlushDue: boolean = false;
  #isClosed: boolean = false;
  readonly #flushDue = (): void => {
    this.#isFlushDue = false;
    this.flush();
  };

  constructor(options: ReplyQueueOptions) {
    this.#options = options;
    this.#stream = options.stream;
  }

  /** The slab that {@link ReplyQueue.reserve} gave a place in. */
  get bytes(): Uint8Array {
    assert(this.#slab !== undefined, "a place was reserved");
    return this.#slab.bytes;
  }

  /** Whether the transport still has a batch. */
  get isWaiting(): boolean {
    return this.#isWaiting;
  }

  /** Bytes of data that wait to be taken. */
  get unread(): number {
    return this.#unread;
  }

  /** Takes `length` bytes at the end of the run, which must fit a slab. Returns their position in `bytes`. */
  reserve(length: number): number {
    let slab = this.#slab;
    if (slab === undefined || this.#end + length > slab.bytes.length) slab = this.#nextSlab();
    const position = this.#end;
    this.#end = position + length;
    return position;
  }

  /** The reserved bytes hold a whole reply. @param charge - bytes of data that are given back when it was taken */
  finish(charge: number): void {
    this.#runReplies += 1;
    this.#runCharge += charge;
  }

  /** Gives back the part of the reserved bytes from `position` on. */
  shrink(position: number): void {
    this.#end = position;
  }

  /** Leaves the reserved bytes to a request that goes on, and begins a new run after them. */
  detach(position: number): ReplyPlace {
    const slab = this.#slab;
    assert(slab !== undefined, "a place was reserved");
    this.#closeRun(position);
    this.#runStart = this.#end;
    slab.pins += 1;
    return { bytes: slab.bytes.subarray(position, this.#end), slab, buffer: undefined };
  }

  /** Returns a place in a buffer of its own, for a long reply. */
  allocate(length: number): ReplyPlace {
    const buffer = this.#options.pool.take(length);
    return { bytes: buffer.subarray(0, length), slab: undefined, buffer };
  }

  /** The request of a place has ended. @param length - bytes of its reply, from the beginning of the place */
  enqueue(place: ReplyPlace, length: number, charge: number): void {
    const { slab, buffer } = place;
    const bytes = length === place.bytes.length ? place.bytes : place.bytes.subarray(0, length);
    this.#push({ bytes, slab, buffer, replies: 1, charge, weight: charge });
  }

  /** Queues a message that was made elsewhere; its memory belongs to the queue. */
  push(bytes: Uint8Array): void {
    this.#closeRun(this.#end);
    const weight = bytes.length;
    this.#push({ bytes, slab: undefined, buffer: undefined, replies: 0, charge: 0, weight });
  }

  /** Flushes at the end of the turn. */
  flushSoon(): void {
    if (this.#isFlushDue) return;
    this.#isFlushDue = true;
    this.#stream.soon(this.#flushDue);
  }

  /** Hands over what is ready, unless the transport is still busy with the last batch. */
  flush(): void {
    if (this.#isClosed) return;
    this.#closeRun(this.#end);
    while (!this.#isWaiting && this.#pending.length > 0) this.#sendBatch();
    if (this.#isWaiting && this.#unread > this.#options.unreadBytes) this.#options.overflow();
  }

  /** The transport took the last batch. */
  drained(): void {
    if (!this.#isWaiting || this.#isClosed) return;
    this.#isWaiting = false;
    this.#options.deadline.clear();
    this.#release(this.#sending.splice(0));
    this.flush();
  }

  /** The connection is gone: nothing is sent any more, and everything queued counts as taken. */
  close(): void {
    if (this.#isClosed) return;
    this.#closeRun(this.#end);
    this.#isClosed = true;
    this.#isWaiting = false;
    this.#release(this.#sending.splice(0));
    this.#release(this.#pending.splice(0));
    this.#slab?.retire();
    this.#slab = undefined;
  }

  #nextSlab(): Slab {
    this.#closeRun(this.#end);
    this.#slab?.retire();
    const slab = new Slab(this.#options.pool, this.#options.account);
    this.#slab = slab;
    this.#runStart = 0;
    this.#end = 0;
    return slab;
  }

  /** Queues the replies before `position` that are ready. */
  #closeRun(position: number): void {
    const slab = this.#slab;
    if (slab === undefined || position === this.#runStart) return;
    slab.pins += 1;
    const bytes = slab.bytes.subarray(this.#runStart, position);
    const chunk = {
      bytes,
      slab,
      buffer: undefined,
      replies: this.#runReplies,
      charge: this.#runCharge,
      weight: this.#runCharge,
    };
    this.#runStart = position;
    this.#runReplies = 0;
    this.#runCharge = 0;
    this.#push(chunk);
  }

  #push(chunk: Chunk): void {
    this.#pending.push(chunk);
    this.#unread += chunk.weight;
    if (this.#isClosed) this.#release(this.#pending.splice(0));
  }

  #sendBatch(): void {
    const whole = this.#fillBatch();
    const isTaken = this.#stream.write(this.#batch);
    this.#batch.length = 0;
    if (isTaken) {
      this.#release(whole);
      return;
    }
    this.#isWaiting = true;
    for (const chunk of whole) this.#sending.push(chunk);
    this.#options.deadline.set(this.#options.unreadMs);
  }

  /** Returns the chunks that end in the batch. A longer one is sent in parts, so that progress can be seen. */
  #fillBatch(): Chunk[] {
    const pending = this.#pending;
    let length = 0;
    let count = 0;
    for (const chunk of pending) {
      const room = BATCH_LENGTH - length;
      if (chunk.bytes.length > room) {
        if (room > 0) this.#batch.push(chunk.bytes.subarray(0, room));
        chunk.bytes = chunk.bytes.subarray(room);
        break;
      }
      this.#batch.push(chunk.bytes);
      length += chunk.bytes.length;
      count += 1;
    }
    if (count < pending.length) return pending.splice(0, count);
    this.#pending = [];
    return pending;
  }

  #release(chunks: readonly Chunk[]): void {
    let replies = 0;
    let charge = 0;
    for (const chunk of chunks) {
      replies += chunk.replies;
      charge += chunk.charge;
      this.#unread -= chunk.weight;
      if (chunk.buffer !== undefined) this.#options.pool.give(chunk.buffer);
      if (chunk.slab !== undefined) this.#releaseSlab(chunk.slab);
    }
    if (chunks.length > 0) this.#options.taken(replies, charge);
  }

  #releaseSlab(slab: Slab): void {
    slab.unpin();
    if (slab !== this.#slab || slab.pins > 0 || this.#runStart !== this.#end) return;
    this.#runStart = 0;
    this.#end = 0;
  }
}
