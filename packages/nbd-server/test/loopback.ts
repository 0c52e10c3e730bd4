import type { ByteReceiver, ByteStream } from "@blocklayer/nbd-server";

/** A connection within the test: this end is the client's, `stream` the server's. Nothing happens by itself. */
export class Loopback {
  readonly stream: ByteStream;
  /** Bytes that the server may have written and the client not read; beyond them `write` is not taken. */
  capacity: number;
  /** Number of writes of the server. */
  writes: number = 0;
  isEndedByServer: boolean = false;
  isClosed: boolean = false;
  #receiver: ByteReceiver | undefined;
  #isPaused: boolean = false;
  readonly #lendsMemory: boolean;
  /** Bytes that arrive at once at most. */
  readonly #piece: number;
  #unsent: Uint8Array[] = [];
  #isEnded: boolean = false;
  #isEndDelivered: boolean = false;
  readonly #received: Uint8Array[] = [];
  #unread: number = 0;
  /** What the transport holds: chunks of the server that the client has no room for. */
  #waiting: Uint8Array[] = [];

  /** @param options - `lendsMemory`: bytes are read into the server's memory, as sockets do */
  constructor(
    options: { capacity?: number; address?: string; lendsMemory?: boolean; piece?: number } = {},
  ) {
    this.#piece = options.piece ?? Number.POSITIVE_INFINITY;
    this.capacity = options.capacity ?? Number.POSITIVE_INFINITY;
    this.#lendsMemory = options.lendsMemory ?? true;
    this.stream = {
      peer: "test",
      ...(options.address === undefined ? {} : { address: options.address }),
      start: (receiver) => {
        this.#receiver = receiver;
        this.#deliver();
      },
      pause: () => {
        this.#isPaused = true;
      },
      resume: () => {
        this.#isPaused = false;
        queueMicrotask(() => this.#deliver());
      },
      write: (chunks) => this.#write(chunks),
      soon: (callback) => queueMicrotask(callback),
      end: () => {
        this.isEndedByServer = true;
      },
      destroy: () => queueMicrotask(() => this.destroy()),
    };
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** Bytes that the client has sent and the server has not looked at. */
  get unsent(): number {
    return this.#unsent.reduce((sum, chunk) => sum + chunk.length, 0);
  }

  /** Bytes from the server that the client has not read. */
  get unread(): number {
    return this.#unread;
  }

  /** The client sends. */
  send(...chunks: Uint8Array[]): void {
    for (const chunk of chunks) {
      const length = Math.min(this.#piece, Math.max(1, chunk.length));
      for (let at = 0; at < chunk.length; at += length) {
        this.#unsent.push(chunk.slice(at, at + length));
      }
    }
    this.#deliver();
  }

  /** The client sends nothing more. */
  end(): void {
    this.#isEnded = true;
    this.#deliver();
  }

  /** The client, or the server, cuts the connection. */
  destroy(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.#unsent = [];
    this.#waiting = [];
    this.#receiver?.closed();
  }

  /** The client reads up to `length` bytes. */
  read(length: number = Number.POSITIVE_INFINITY): Uint8Array {
    const bytes = this.peek(length);
    this.#unread -= bytes.length;
    let rest = bytes.length;
    while (rest > 0) {
      const chunk = this.#received.shift() as Uint8Array;
      if (chunk.length > rest) this.#received.unshift(chunk.subarray(rest));
      rest = Math.max(0, rest - chunk.length);
    }
    this.#fill();
    return bytes;
  }

  /** The client looks at what it has not read yet. */
  peek(length: number): Uint8Array {
    const bytes = new Uint8Array(Math.min(length, this.#unread));
    let at = 0;
    for (const chunk of this.#received) {
      const part = chunk.subarray(0, bytes.length - at);
      bytes.set(part, at);
      at += part.length;
      if (at === bytes.length) break;
    }
    return bytes;
  }

  #deliver(): void {
    const receiver = this.#receiver;
    if (receiver === undefined) return;
    while (!this.#isPaused && !this.isClosed) {
      const chunk = this.#unsent.shift();
      if (chunk === undefined) break;
      if (this.#lendsMemory) this.#lend(receiver, chunk);
      else receiver.data(chunk);
    }
    if (this.#isEnded && !this.#isEndDelivered && !this.#isPaused && !this.isClosed) {
      if (this.#unsent.length > 0) return;
      this.#isEndDelivered = true;
      receiver.ended();
    }
  }

  #lend(receiver: ByteReceiver, chunk: Uint8Array): void {
    const memory = receiver.buffer();
    const length = Math.min(memory.length, chunk.length);
    memory.set(chunk.subarray(0, length));
    if (length < chunk.length) this.#unsent.unshift(chunk.subarray(length));
    receiver.data(memory.subarray(0, length));
  }

  #write(chunks: readonly Uint8Array[]): boolean {
    this.writes += 1;
    if (this.isClosed) return false;
    if (this.#waiting.length > 0) throw new Error("written before the last write was drained");
    this.#waiting.push(...chunks);
    this.#take();
    return this.#waiting.length === 0;
  }

  #fill(): void {
    if (this.#waiting.length === 0) return;
    this.#take();
    if (this.#waiting.length === 0) this.#receiver?.drained();
  }

  #take(): void {
    for (;;) {
      const chunk = this.#waiting[0];
      const room = this.capacity - this.#unread;
      if (chunk === undefined || room <= 0) return;
      const part = chunk.subarray(0, room);
      this.#received.push(part.slice());
      this.#unread += part.length;
      if (part.length === chunk.length) this.#waiting.shift();
      else this.#waiting[0] = chunk.subarray(part.length);
    }
  }
}
