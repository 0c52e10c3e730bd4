import { BlockError } from "@blocklayer/errors";
import {
  type ByteReceiver,
  type ByteStream,
  GreetingReader,
  NBD_LIMITS,
  type NbdExportNameReply,
  type NbdGreeting,
  type NbdOptionReplyMessage,
  OptionReplyReader,
} from "@blocklayer/nbd-protocol";

/** Bytes of a read during the negotiation. */
const BUFFER_SIZE = 16 * 1024;

/** Bytes of a reply: the longest is an export of a list, with a name and a description. */
const REPLY_MAX = 4 + 2 * NBD_LIMITS.string;

/**
 * The client's side of a negotiation: sends messages and waits for the next one. At its end the stream goes over to the
 * receiver of the transmission phase.
 *
 * The stream is paused while nobody waits, so a server can not make the client hold more than one read.
 */
export class Conversation implements ByteReceiver {
  readonly stream: ByteStream;
  readonly #memory: Uint8Array = new Uint8Array(BUFFER_SIZE);
  readonly #greetings: GreetingReader = new GreetingReader();
  readonly #replies: OptionReplyReader = new OptionReplyReader({
    maxPayload: REPLY_MAX,
  });
  #next: ByteReceiver | undefined;
  #chunk: Uint8Array | undefined;
  #failure: unknown;
  #isBlocked: boolean = false;
  #wake: () => void = nobody;

  /** @param signal - aborting cuts the stream, and what waits rejects with its reason */
  constructor(stream: ByteStream, signal: AbortSignal) {
    this.stream = stream;
    const abort = (): void => {
      this.#fail(signal.reason);
      stream.destroy();
    };
    signal.addEventListener("abort", abort, { once: true });
    this.#stopListening = () => signal.removeEventListener("abort", abort);
    stream.start(this);
    if (signal.aborted) abort();
  }

  readonly #stopListening: () => void;

  async greeting(): Promise<NbdGreeting> {
    const greeting = await this.#read(this.#greetings, () => this.#greetings.next());
    const rest = this.#greetings.takeRest();
    this.#replies.push(rest);
    return greeting;
  }

  /** Waits for the next reply to an option. */
  reply(): Promise<NbdOptionReplyMessage> {
    return this.#read(this.#replies, () => this.#replies.next());
  }

  /** Waits for the reply to EXPORT_NAME. */
  exportNameReply(noZeroes: boolean): Promise<NbdExportNameReply> {
    return this.#read(this.#replies, () => this.#replies.nextExportName(noZeroes));
  }

  /** Sends messages and waits until the stream has taken them. */
  async send(...chunks: Uint8Array[]): Promise<void> {
    this.#check();
    this.#isBlocked = !this.stream.write(chunks);
    while (this.#isBlocked) await this.#event();
  }

  /** Gives the stream to the transmission phase, which is told if it has ended already. */
  handOver(next: ByteReceiver): void {
    this.#stopListening();
    this.#next = next;
    if (this.#failure !== undefined) {
      next.closed(this.#failure);
      return;
    }
    const chunk = this.#replies.takeRest();
    // A server has nothing to say before the first request, so the receiver will refuse this.
    if (chunk.length > 0) next.data(chunk);
    this.stream.resume();
  }

  /** Sends what is left and cuts the stream when the server has ended it too. */
  async finish(): Promise<void> {
    this.stream.end();
    try {
      for (;;) await this.#pull();
    } catch {
      // The end of the stream is what was waited for; whether it was a clean one does not matter any more.
      this.cut();
    }
  }

  /** Cuts the stream. */
  cut(): void {
    this.#stopListening();
    this.stream.destroy();
  }

  buffer(): Uint8Array {
    return this.#next === undefined ? this.#memory : this.#next.buffer();
  }

  data(chunk: Uint8Array): void {
    if (this.#next !== undefined) {
      this.#next.data(chunk);
      return;
    }
    this.#chunk = chunk;
    this.stream.pause();
    this.#wake();
  }

  drained(): void {
    this.#isBlocked = false;
    if (this.#next === undefined) this.#wake();
    else this.#next.drained();
  }

  ended(): void {
    if (this.#next === undefined) this.#fail(closedError(this.stream.peer));
    else this.#next.ended();
  }

  closed(error?: unknown): void {
    if (this.#next === undefined) this.#fail(closedError(this.stream.peer, error));
    else this.#next.closed(error);
  }

  async #read<T>(reader: { push(chunk: Uint8Array): void }, next: () => T | undefined): Promise<T> {
    for (;;) {
      const message = next();
      if (message !== undefined) return message;
      reader.push(await this.#pull());
    }
  }

  async #pull(): Promise<Uint8Array> {
    while (this.#chunk === undefined) {
      this.#check();
      this.stream.resume();
      await this.#event();
    }
    const chunk = this.#chunk;
    this.#chunk = undefined;
    return chunk;
  }

  #event(): Promise<void> {
    this.#check();
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#isBlocked = false;
    this.#wake();
  }
}

function closedError(peer: string, cause?: unknown): BlockError {
  const reason = cause instanceof Error ? `: ${cause.message}` : "";
  return new BlockError(
    "ECONNRESET",
    `server closed the connection during the negotiation${reason}`,
    { operation: "nbd negotiation", peer },
    { cause },
  );
}

function nobody(): void {
  // Nobody waits yet.
}
