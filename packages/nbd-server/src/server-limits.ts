import { NBD_LIMITS } from "@blocklayer/nbd-protocol";

/**
 * Every limit of the server. All can be set per server; each is checked before memory is taken.
 *
 * @see docs/reliability.md section 3.6.3
 */
export interface NbdServerLimits {
  /** Connections at once; further ones are closed without a word. */
  readonly connections: number;
  /** Connections at once of one address. Unix sockets have none. */
  readonly connectionsPerAddress: number;
  /** Milliseconds for the whole handshake. */
  readonly handshakeMs: number;
  /** Milliseconds for each message of the handshake. */
  readonly messageMs: number;
  /** Options of one handshake; one more closes. */
  readonly options: number;
  /** Bytes of data of one option; more is answered ERR_TOO_BIG and closes. */
  readonly optionPayload: number;
  /** Requests of one connection whose reply was not taken by the transport; then it is not read any more. */
  readonly requests: number;
  /** Bytes of data of those requests, likewise. */
  readonly requestBytes: number;
  /** Bytes of data of all connections together, likewise. */
  readonly bufferBytes: number;
  /** Bytes of data that wait to be taken by the client; more closes. */
  readonly unreadBytes: number;
  /** Milliseconds a client may take for one MiB of replies; more closes. */
  readonly unreadMs: number;
  /** Bytes of data of one request, 512 or more. READ of more is `EINVAL`, WRITE of more closes. */
  readonly payload: number;
  /**
   * Milliseconds a client may take for one MiB of the data of a WRITE that it has begun; more closes. Its memory is
   * taken when it begins, and others may wait for it. The time in which the client is not read does not count.
   */
  readonly payloadMs: number;
  /** Milliseconds between our end of a connection and the client's before it is cut. */
  readonly lingerMs: number;
}

/** The limits of a server that was told no others. */
export const NBD_SERVER_LIMITS: NbdServerLimits = {
  connections: 100,
  connectionsPerAddress: 20,
  handshakeMs: 10_000,
  messageMs: 5_000,
  options: NBD_LIMITS.options,
  optionPayload: NBD_LIMITS.optionPayload,
  requests: 256,
  requestBytes: 64 * 1024 * 1024,
  bufferBytes: 256 * 1024 * 1024,
  unreadBytes: 64 * 1024 * 1024,
  unreadMs: 30_000,
  payload: NBD_LIMITS.payload,
  payloadMs: 30_000,
  lingerMs: 2_000,
};

/** What a preferred block size is at least, so it must be taken. */
const PAYLOAD_MIN = 512;

/** @throws RangeError */
export function checkPayload(payload: number): void {
  if (payload >= PAYLOAD_MIN) return;
  throw new RangeError(`limits.payload of ${payload} bytes is less than ${PAYLOAD_MIN}`);
}
