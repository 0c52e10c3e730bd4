import type { Env } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import {
  type ByteReceiver,
  type ByteStream,
  encodeGreeting,
  NbdHandshakeFlag,
  OptionReader,
} from "@blocklayer/nbd-protocol";
import type { BufferAccount, BufferBudget } from "./buffer-budget.ts";
import type { BufferPool } from "./buffer-pool.ts";
import { Deadline } from "./deadline.ts";
import type { NbdExport } from "./nbd-export.ts";
import { type ExportDirectory, Negotiation, type NextStep } from "./negotiation.ts";
import { ReceiveMemory } from "./receive-memory.ts";
import { ReplyQueue } from "./reply-queue.ts";
import type { RequestCounts, RequestProbe } from "./request-runner.ts";
import type { NbdServerLimits } from "./server-limits.ts";
import { Transmission } from "./transmission.ts";

/** Bytes that are read at once from a client that has not chosen an export. */
const HANDSHAKE_LENGTH = 4096;

/**
 * Where a connection stands.
 *
 * | stage | what arrives | what ends it |
 * | --- | --- | --- |
 * | handshake | options | an export is chosen; ABORT; too late |
 * | transmission | requests | the client says goodbye; the server stops |
 * | ending | is dropped | the client ends too, or lingers too long |
 * | closed | nothing | the last request in flight ends |
 */
export type ConnectionStage = "handshake" | "transmission" | "ending" | "closed";

/** A connection as others see it, at one moment. */
export interface ConnectionInfo extends RequestCounts {
  /** Unique within the server. */
  readonly id: number;
  readonly peer: string;
  readonly stage: ConnectionStage;
  /** The chosen export. */
  readonly exportName: string | undefined;
  /** Requests whose reply was not taken yet. */
  readonly inFlight: number;
  /** Bytes of memory that its requests hold. */
  readonly heldBytes: number;
  /** By the clock of the environment, milliseconds. */
  readonly connectedAtMs: number;
}

export interface NbdConnectionParts {
  readonly id: number;
  readonly stream: ByteStream;
  readonly env: Env;
  readonly limits: NbdServerLimits;
  readonly pool: BufferPool;
  readonly budget: BufferBudget;
  readonly exports: ExportDirectory;
  readonly probe: RequestProbe | undefined;
  /** The connection is gone and nothing of it is left. */
  readonly finished: (connection: NbdConnection) => void;
  /** The connection is cut for this reason. */
  readonly failed: (connection: NbdConnection, error: unknown) => void;
}

const NO_COUNTS: RequestCounts = { requests: 0, errors: 0, bytesRead: 0, bytesWritten: 0 };

/** One client, from the greeting to the last request that it left behind. */
export class NbdConnection implements ByteReceiver {
  readonly id: number;
  readonly stream: ByteStream;
  /** Resolves when nothing of the connection is left; never rejects. */
  readonly done: Promise<void>;
  readonly #parts: NbdConnectionParts;
  readonly #account: BufferAccount;
  readonly #replies: ReplyQueue;
  readonly #receive: ReceiveMemory;
  readonly #negotiation: Negotiation;
  readonly #options: OptionReader;
  /** Of the handshake, and later of the farewell. */
  readonly #patience: Deadline;
  readonly #unread: Deadline;
  /** Of the data of a WRITE. */
  readonly #arrival: Deadline;
  readonly #connectedAtMs: number;
  readonly #small: Uint8Array = new Uint8Array(HANDSHAKE_LENGTH);
  #stage: ConnectionStage = "handshake";
  #isHaggling: boolean = false;
  #isHaggleHeld: boolean = false;
  #isEndSent: boolean = false;
  #hasPeerEnded: boolean = false;
  #isCut: boolean = false;
  #isFinished: boolean = false;
  #chosen: NbdExport | undefined;
  #transmission: Transmission | undefined;
  #resolveDone: () => void = () => undefined;

  constructor(parts: NbdConnectionParts) {
    const { env, limits, pool, stream } = parts;
    this.#parts = parts;
    this.id = parts.id;
    this.stream = stream;
    this.done = new Promise((resolve) => {
      this.#resolveDone = resolve;
    });
    this.#account = parts.budget.open(() => this.#transmission?.wake());
    this.#connectedAtMs = env.clock.now();
    this.#patience = new Deadline(env.clock, () => this.#impatient());
    this.#unread = new Deadline(env.clock, () => this.#drop(tooLate("reading replies", this)));
    this.#arrival = new Deadline(env.clock, () =>
      this.#drop(tooLate("sending the data of a write", this)),
    );
    this.#replies = new ReplyQueue({
      stream,
      pool,
      account: this.#account,
      unreadBytes: limits.unreadBytes,
      unreadMs: limits.unreadMs,
      deadline: this.#unread,
      taken: (replies, charge) => this.#transmission?.taken(replies, charge),
      overflow: () => this.#drop(tooMuchUnread(this.#replies.unread, limits.unreadBytes, this)),
    });
    this.#receive = new ReceiveMemory(pool, this.#account);
    this.#options = new OptionReader({
      maxOptions: limits.options,
      maxPayload: limits.optionPayload,
    });
    this.#negotiation = new Negotiation(parts.exports, (bytes) => this.#replies.push(bytes));
  }

  get info(): ConnectionInfo {
    return {
      ...(this.#transmission?.counts ?? NO_COUNTS),
      id: this.id,
      peer: this.stream.peer,
      stage: this.#stage,
      exportName: this.#chosen?.name,
      inFlight: this.#transmission?.inFlight ?? 0,
      heldBytes: this.#account.held,
      connectedAtMs: this.#connectedAtMs,
    };
  }

  /** Greets the client. */
  start(): void {
    this.#awaitMessage();
    this.stream.start(this);
    const { FIXED_NEWSTYLE, NO_ZEROES } = NbdHandshakeFlag;
    this.#replies.push(encodeGreeting(FIXED_NEWSTYLE | NO_ZEROES));
    this.#replies.flush();
  }

  /**
   * Ends the connection as softly as its stage allows: requests in flight end and are answered, later ones are answered
   * `ESHUTDOWN`; a client that has chosen no export is cut.
   *
   * @returns when nothing of it is left
   */
  stop(): Promise<void> {
    if (this.#stage === "handshake") this.#cut();
    else this.#transmission?.stop();
    return this.done;
  }

  /** Cuts the connection. @returns when nothing of it is left; requests in flight end first */
  cut(): Promise<void> {
    this.#cut();
    return this.done;
  }

  buffer(): Uint8Array {
    return this.#stage === "transmission" ? this.#receive.buffer() : this.#small;
  }

  data(chunk: Uint8Array): void {
    if (this.#stage === "transmission") {
      this.#transmission?.data(chunk);
    } else if (this.#stage === "handshake") {
      this.#options.push(chunk);
      this.#haggle();
    }
  }

  drained(): void {
    this.#replies.drained();
    if (this.#stage === "ending") this.#sendEnd();
    if (this.#isHaggleHeld && !this.#replies.isWaiting) {
      this.#isHaggleHeld = false;
      this.stream.resume();
      this.#haggle();
    }
  }

  ended(): void {
    this.#hasPeerEnded = true;
    if (this.#stage === "transmission") this.#transmission?.ended();
    else if (this.#stage === "handshake") this.#end();
    else if (this.#isEndSent) this.#cut();
  }

  closed(): void {
    this.#stage = "closed";
    this.#patience.cancel();
    this.#unread.cancel();
    this.#arrival.cancel();
    this.#transmission?.closed();
    this.#replies.close();
    this.#receive.close();
    this.#account.close();
    if (this.#transmission?.isIdle ?? true) this.#finish();
  }

  /** Answers the options that have arrived. A client that does not read the answers is not read either. */
  #haggle(): void {
    if (this.#isHaggling) return;
    this.#isHaggling = true;
    try {
      while (this.#stage === "handshake" && !this.#replies.isWaiting) {
        const request = this.#options.next();
        if (request === undefined) break;
        this.#awaitMessage();
        this.#follow(this.#negotiation.answer(request, this.#options.clientFlags));
        this.#replies.flush();
      }
    } catch (error) {
      this.#drop(error);
    } finally {
      this.#isHaggling = false;
    }
    if (this.#stage === "handshake" && this.#replies.isWaiting && !this.#isHaggleHeld) {
      this.#isHaggleHeld = true;
      this.stream.pause();
    }
  }

  #follow(step: NextStep): void {
    if (step === "option") return;
    if (step === "end") this.#end();
    else if (step === "drop") this.#cut();
    else this.#transmit(step);
  }

  #transmit(chosen: NbdExport): void {
    const { limits, pool } = this.#parts;
    this.#patience.cancel();
    this.#stage = "transmission";
    this.#chosen = chosen;
    const transmission = new Transmission({
      chosen,
      stream: this.stream,
      replies: this.#replies,
      receive: this.#receive,
      account: this.#account,
      pool,
      limits,
      arrival: this.#arrival,
      probe: this.#parts.probe,
      finished: () => this.#end(),
      idle: () => this.#finish(),
      failed: (error) => this.#drop(error),
    });
    this.#transmission = transmission;
    chosen.attach(this);
    // The transport may still read into the small buffer, so the requests that came with the last option leave it.
    const rest = this.#options.takeRest().slice();
    if (rest.length > 0) transmission.data(rest);
  }

  #awaitMessage(): void {
    const { env, limits } = this.#parts;
    const restMs = this.#connectedAtMs + limits.handshakeMs - env.clock.now();
    this.#patience.set(Math.max(0, Math.min(limits.messageMs, restMs)));
  }

  /** Says goodbye after what is queued. */
  #end(): void {
    if (this.#stage === "ending" || this.#stage === "closed") return;
    this.#stage = "ending";
    this.#replies.flush();
    this.#sendEnd();
  }

  #sendEnd(): void {
    if (this.#replies.isWaiting || this.#isEndSent || this.#isCut) return;
    this.#isEndSent = true;
    if (this.#hasPeerEnded) {
      this.#cut();
      return;
    }
    // What the client still sends is read and dropped, so that a reset does not overtake our last replies.
    this.#patience.set(this.#parts.limits.lingerMs);
    this.stream.end();
    this.stream.resume();
  }

  #impatient(): void {
    if (this.#stage === "handshake") this.#drop(tooLate("the handshake", this));
    else this.#cut();
  }

  #drop(error: unknown): void {
    if (this.#isCut || this.#stage === "closed") return;
    this.#cut();
    this.#parts.failed(this, error);
  }

  #cut(): void {
    this.#isCut = true;
    if (this.#stage !== "closed") this.#stage = "ending";
    this.#transmission?.halt();
    this.stream.destroy();
  }

  #finish(): void {
    if (this.#isFinished) return;
    this.#isFinished = true;
    this.#chosen?.detach(this);
    this.#parts.finished(this);
    this.#resolveDone();
  }
}

function tooLate(what: string, { id, stream }: NbdConnection): BlockError {
  return new BlockError("ETIMEDOUT", `client took too long for ${what}`, {
    operation: "nbd",
    connection: id,
    peer: stream.peer,
  });
}

function tooMuchUnread(unread: number, limit: number, { id, stream }: NbdConnection): BlockError {
  return new BlockError("ENOMEM", `client leaves ${unread} bytes of replies unread`, {
    operation: "nbd",
    connection: id,
    peer: stream.peer,
    value: unread,
    limit,
  });
}
