import type { ByteReceiver, ByteStream } from "@blocklayer/nbd-client";

export interface StreamOptions {
  /** Bytes of each delivery to the client. Default: as they were sent. */
  readonly chunkSize?: number;
  /** What errors call the server. Default `"memory"`. */
  readonly name?: string;
}

/** The server's end of a stream in memory. */
export class StreamPeer {
  /** Called when something was written. */
  onData: (() => void) | undefined;
  isEnded: boolean = false;
  isDestroyed: boolean = false;
  readonly client: MemoryStream;
  #unread: Uint8Array = new Uint8Array(0);
  readonly #readers: (() => void)[] = [];

  constructor(options: StreamOptions = {}) {
    this.client = new MemoryStream(this, options);
  }

  /** Sends bytes to the client. */
  send(...chunks: Uint8Array[]): void {
    for (const chunk of chunks) this.client.deliver(chunk.slice());
  }

  /** Sends an end. */
  end(): void {
    this.client.deliver("end");
  }

  /** Breaks the connection. */
  cut(error?: unknown): void {
    this.client.lose(error);
  }

  /** Waits for `length` bytes from the client. */
  async read(length: number): Promise<Uint8Array> {
    while (this.#unread.length < length) {
      if (this.isDestroyed || this.isEnded)
        throw new Error(`the client left before ${length} bytes`);
      await new Promise<void>((resolve) => this.#readers.push(resolve));
    }
    const bytes = this.#unread.subarray(0, length);
    this.#unread = this.#unread.subarray(length);
    return bytes;
  }

  /** Everything that was received and not read. */
  takeReceived(): Uint8Array {
    const bytes = this.#unread;
    this.#unread = new Uint8Array(0);
    return bytes;
  }

  get receivedLength(): number {
    return this.#unread.length;
  }

  receive(chunks: readonly Uint8Array[]): void {
    for (const chunk of chunks) {
      const joined = new Uint8Array(this.#unread.length + chunk.length);
      joined.set(this.#unread);
      joined.set(chunk, this.#unread.length);
      this.#unread = joined;
    }
    this.notify();
  }

  notify(): void {
    for (const wake of this.#readers.splice(0)) wake();
    this.onData?.();
  }
}

/** The client's end: reads into the receiver's memory, and keeps to the contract of streams. */
export class MemoryStream implements ByteStream {
  readonly peer: string;
  /** Whether writes are kept instead of taken, as when a socket's buffer is full. */
  isFull: boolean = false;
  writeCount: number = 0;
  /** The chunks of the last write, not copies of them. */
  lastWrite: readonly Uint8Array[] = [];
  readonly #peer: StreamPeer;
  readonly #chunkSize: number;
  readonly #inbound: (Uint8Array | "end")[] = [];
  #kept: readonly Uint8Array[] | undefined;
  #receiver: ByteReceiver | undefined;
  #isPaused: boolean = true;
  #isPumping: boolean = false;
  #isClosed: boolean = false;

  constructor(peer: StreamPeer, options: StreamOptions) {
    this.peer = options.name ?? "memory";
    this.#peer = peer;
    this.#chunkSize = options.chunkSize ?? Number.POSITIVE_INFINITY;
  }

  start(receiver: ByteReceiver): void {
    this.#receiver = receiver;
    this.resume();
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.#pumpSoon();
  }

  write(chunks: readonly Uint8Array[]): boolean {
    if (this.#kept !== undefined) throw new Error("write before drained");
    if (this.#peer.isEnded) throw new Error("write after end");
    if (this.#isClosed) return false;
    this.writeCount += 1;
    this.lastWrite = [...chunks];
    if (this.isFull) {
      this.#kept = [...chunks];
      return false;
    }
    this.#peer.receive(chunks.map((chunk) => chunk.slice()));
    return true;
  }

  /** Takes what was kept, as it is now. */
  release(): void {
    this.isFull = false;
    const kept = this.#kept;
    this.#kept = undefined;
    if (kept === undefined) return;
    this.#peer.receive(kept.map((chunk) => chunk.slice()));
    this.#receiver?.drained();
  }

  soon(callback: () => void): void {
    process.nextTick(callback);
  }

  end(): void {
    this.#peer.isEnded = true;
    this.#peer.notify();
  }

  destroy(): void {
    this.lose(undefined);
  }

  lose(error: unknown): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#peer.isDestroyed = true;
    this.#peer.notify();
    queueMicrotask(() => this.#receiver?.closed(error));
  }

  deliver(item: Uint8Array | "end"): void {
    if (item === "end" || item.length > 0) this.#inbound.push(item);
    this.#pumpSoon();
  }

  #pumpSoon(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    queueMicrotask(() => {
      this.#isPumping = false;
      this.#pump();
    });
  }

  #pump(): void {
    while (!this.#isPaused && !this.#isClosed && this.#receiver !== undefined) {
      const item = this.#inbound.shift();
      if (item === undefined) return;
      if (item === "end") {
        this.#receiver.ended();
        return;
      }
      const buffer = this.#receiver.buffer();
      const count = Math.min(item.length, buffer.length, this.#chunkSize);
      buffer.set(item.subarray(0, count));
      if (count < item.length) this.#inbound.unshift(item.subarray(count));
      this.#receiver.data(buffer.subarray(0, count));
      // Memory that is read into again: whoever kept a reference sees it.
      if (!this.#isPaused) buffer.fill(0xbd, 0, count);
    }
  }
}
