import { Socket, type SocketConstructorOpts } from "node:net";
import type { ByteReceiver, ByteStream } from "@blocklayer/nbd-protocol";

/** What an accepted socket has beside its documented members. */
interface SocketWithHandle {
  _handle: { readonly useUserBuffer?: unknown } | null;
}

/**
 * A socket as a {@link ByteStream}.
 *
 * Node lets only outgoing connections read into memory of the program's own. So the handle of an accepted socket is
 * moved to a new socket that does; where that is not possible, bytes arrive in buffers that Node makes for each
 * read, which is slower and otherwise the same.
 */
export class SocketStream implements ByteStream {
  readonly peer: string;
  readonly address?: string;
  #socket: Socket;
  #receiver: ByteReceiver | undefined;
  #isWaiting: boolean = false;
  #isEnded: boolean = false;
  #isClosed: boolean = false;
  readonly #written = (error?: Error | null): void => {
    // Writes that were taken at once are reported here too, later; after an error "close" follows.
    if (error !== undefined && error !== null) return;
    if (!this.#isWaiting || this.#socket.writableLength > 0 || this.#isClosed) return;
    this.#isWaiting = false;
    this.#receiver?.drained();
  };

  /**
   * @param accepted - paused since it was accepted
   * @param address - what the limit per address counts
   */
  constructor(accepted: Socket, peer: string, address?: string) {
    this.#socket = accepted;
    this.peer = peer;
    if (address !== undefined) this.address = address;
    // Until the stream is started nobody else listens, and an error without a listener ends the process.
    accepted.on("error", ignore);
  }

  start(receiver: ByteReceiver): void {
    this.#receiver = receiver;
    const moved = readingInto(this.#socket, receiver);
    if (moved === undefined) this.#socket.on("data", (chunk) => receiver.data(chunk));
    else this.#socket = moved.on("error", ignore);
    this.#socket.on("end", () => {
      if (!this.#isClosed) receiver.ended();
    });
    this.#socket.on("close", () => {
      this.#isClosed = true;
      receiver.closed();
    });
    this.#socket.resume();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  write(chunks: readonly Uint8Array[]): boolean {
    const socket = this.#socket;
    const last = chunks.length - 1;
    if (last < 0) return true;
    if (socket.destroyed || this.#isEnded) {
      // Nobody will take it: `closed` follows and frees the memory.
      this.#isWaiting = false;
      return false;
    }
    if (last > 0) socket.cork();
    for (let index = 0; index < last; index += 1) socket.write(chunks[index] as Uint8Array);
    socket.write(chunks[last] as Uint8Array, this.#written);
    if (last > 0) socket.uncork();
    if (socket.writableLength === 0) return true;
    this.#isWaiting = true;
    return false;
  }

  soon(callback: () => void): void {
    setImmediate(callback);
  }

  end(): void {
    this.#isEnded = true;
    this.#socket.end();
  }

  destroy(): void {
    this.#isClosed = this.#receiver === undefined;
    this.#socket.destroy();
  }
}

/** An error is followed by "close", which says all that matters. */
function ignore(): void {
  // Nothing to add.
}

/** Moves the handle of an accepted socket to one that reads into the receiver's memory. */
function readingInto(accepted: Socket, receiver: ByteReceiver): Socket | undefined {
  const owner = accepted as unknown as SocketWithHandle;
  const handle = owner._handle;
  if (handle === null || typeof handle.useUserBuffer !== "function") return undefined;
  owner._handle = null;
  const options = {
    handle,
    allowHalfOpen: true,
    onread: {
      buffer: () => receiver.buffer(),
      callback: (length: number, buffer: Uint8Array): boolean => {
        receiver.data(length === buffer.length ? buffer : buffer.subarray(0, length));
        return true;
      },
    },
  };
  const socket = new Socket(options as unknown as SocketConstructorOpts);
  // The empty shell is destroyed, or its server would count it as open for ever.
  accepted.destroy();
  return socket;
}
