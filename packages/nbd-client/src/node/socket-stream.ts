import { Socket, type SocketConstructorOpts } from "node:net";
import type { ByteReceiver, ByteStream } from "@blocklayer/nbd-protocol";

/** Bytes of the first read, which Node wants memory for before the stream is started. */
const FIRST_READ = 4096;

/**
 * A socket as a {@link ByteStream}: it reads into memory of the receiver and writes what it is given at once with one
 * system call, from where it lies.
 */
export class SocketStream implements ByteStream {
  readonly peer: string;
  readonly socket: Socket;
  #receiver: ByteReceiver | undefined;
  #isPaused: boolean = true;
  #isWaiting: boolean = false;
  #isEnded: boolean = false;
  #isClosed: boolean = false;
  #error: unknown;
  readonly #written = (): void => {
    // Writes that were taken at once are reported here too, later.
    if (!this.#isWaiting || this.#isClosed || this.socket.destroyed) return;
    if (this.socket.writableLength > 0) return;
    this.#isWaiting = false;
    this.#receiver?.drained();
  };

  /**
   * @param peer - the other side, for people
   * @param descriptor - a connected socket of this process; without it `socket` is to be connected
   */
  constructor(peer: string, descriptor?: number) {
    this.peer = peer;
    const options = {
      allowHalfOpen: true,
      ...(descriptor === undefined
        ? {}
        : { fd: descriptor, readable: true, writable: true, manualStart: true }),
      onread: {
        buffer: () => this.#receiver?.buffer() ?? new Uint8Array(FIRST_READ),
        callback: (length: number, buffer: Uint8Array): boolean => {
          this.#receiver?.data(length === buffer.length ? buffer : buffer.subarray(0, length));
          return !this.#isPaused;
        },
      },
    };
    this.socket = new Socket(options as SocketConstructorOpts);
    this.socket.pause();
    this.socket.on("error", (error) => {
      this.#error ??= error;
    });
    this.socket.on("end", () => {
      if (!this.#isClosed) this.#receiver?.ended();
    });
    this.socket.on("close", () => {
      this.#isClosed = true;
      this.#receiver?.closed(this.#error);
    });
  }

  /** Lets the operating system find out that the peer is gone, when nothing is sent. */
  keepAlive(isWanted: boolean): this {
    this.socket.setKeepAlive(isWanted);
    return this;
  }

  start(receiver: ByteReceiver): void {
    this.#receiver = receiver;
    if (!this.#isClosed) {
      this.resume();
      return;
    }
    // It was lost between connecting and starting, and said so when nobody listened.
    process.nextTick(() => receiver.closed(this.#error));
  }

  pause(): void {
    this.#isPaused = true;
    this.socket.pause();
  }

  resume(): void {
    this.#isPaused = false;
    this.socket.resume();
  }

  write(chunks: readonly Uint8Array[]): boolean {
    const { socket } = this;
    const last = chunks.length - 1;
    if (last < 0) return true;
    // Nobody will take it: `closed` follows and frees the memory.
    if (socket.destroyed || this.#isEnded) return false;
    if (last > 0) socket.cork();
    for (let index = 0; index < last; index += 1) socket.write(chunks[index] as Uint8Array);
    socket.write(chunks[last] as Uint8Array, this.#written);
    if (last > 0) socket.uncork();
    if (socket.writableLength === 0) return true;
    this.#isWaiting = true;
    return false;
  }

  /** After every promise job that is ready, so that requests that answers brought about leave together. */
  soon(callback: () => void): void {
    process.nextTick(callback);
  }

  end(): void {
    this.#isEnded = true;
    this.socket.end();
  }

  destroy(): void {
    this.socket.destroy();
  }
}
