/**
 * What a {@link ByteStream} tells its user. Calls never overlap, and none follows `closed`.
 */
export interface ByteReceiver {
  /**
   * Returns memory for the next bytes. A transport that can read into memory it is given asks before each read; others
   * never call it.
   */
  buffer(): Uint8Array;
  /**
   * Bytes arrived: the beginning of what the last `buffer()` returned, or memory of the transport's own that it
   * gives away.
   */
  data(chunk: Uint8Array): void;
  /** What the last `write` left over has been taken: the next `write` is allowed. */
  drained(): void;
  /** The peer sends nothing more; it may still read. */
  ended(): void;
  /**
   * The connection is gone, whoever ended it. Called once.
   *
   * @param error - what the transport knows of the reason, for people
   */
  closed(error?: unknown): void;
}

/**
 * A duplex stream of bytes between an NBD client and a server, made for few system calls and no copies: what one side
 * writes at once leaves in one burst, and what arrives is read into memory of the reader's own.
 *
 * `nbd-client/node` and `nbd-server/node` implement it over sockets; a WebSocket, a simulator or a message port can as
 * well.
 */
export interface ByteStream {
  /** The other side, for people: `"127.0.0.1:10809"`, `"/run/nbd.sock"`. */
  readonly peer: string;
  /** What a server's limit of connections per address counts. `undefined` where peers have no address. */
  readonly address?: string;
  /** Names the receiver and begins to deliver. Called once. */
  start(receiver: ByteReceiver): void;
  /** Stops calls of `data` from now on. Pausing twice is harmless. */
  pause(): void;
  /** Lets `data` be called again, not within this call. */
  resume(): void;
  /**
   * Sends the chunks one after the other, if possible with one system call. The array is not kept.
   *
   * @returns `true` when all was taken, so that the memory is free at once; `false` when the rest stays in use until
   *   `drained` is called, before which nothing more may be written
   */
  write(chunks: readonly Uint8Array[]): boolean;
  /** Calls back soon, after whatever else this turn of the event loop brings; many calls make one burst. */
  soon(callback: () => void): void;
  /** Sends an end after what was written. Nothing may be written any more; bytes still arrive until the peer ends too. */
  end(): void;
  /** Cuts the connection: memory that was still in use is free. `closed` follows, not within this call. */
  destroy(): void;
}
