import { type Env, realEnv } from "@blocklayer/env";
import type { BlockError } from "@blocklayer/errors";
import { type ByteStream, NbdCommand, NbdCommandFlag } from "@blocklayer/nbd-protocol";
import { ClientRequest, type ClientRequestParts } from "./client-request.ts";
import { establish, NEGOTIATION_TIMEOUT_MS, type OpenStream } from "./establish.ts";
import { maxPayload, type NbdExportInfo } from "./export-info.ts";
import { Transmission } from "./transmission.ts";

/** Requests in flight on one connection, unless told otherwise. */
export const REQUESTS_MAX = 64;

export interface NbdConnectionOptions {
  /** Default `""`, the server's default export. */
  readonly exportName?: string;
  /** Time. Default the real one. */
  readonly env?: Env;
  /** Requests in flight; more wait. 1 or more, default 64. */
  readonly requestsMax?: number;
  /** The connection is given up when nothing moved for so long while requests are in flight. Default 0: never. */
  readonly requestTimeoutMs?: number;
  /** What connecting and negotiating may take. Default 30 s. */
  readonly negotiationTimeoutMs?: number;
  /** Stops the opening. */
  readonly signal?: AbortSignal;
}

/** What a change may ask for. */
export interface NbdWriteOptions {
  /** Complete only when stable. */
  readonly fua?: boolean;
  /** Stops waiting for a place in flight; what was sent is answered. */
  readonly signal?: AbortSignal;
}

export interface NbdZeroOptions extends NbdWriteOptions {
  /** Keep the range allocated. */
  readonly noHole?: boolean;
  /** Fail with `ENOTSUP` where it would be as slow as a write. */
  readonly fastZero?: boolean;
}

/**
 * One connection to one export, without a graph: a plain client.
 *
 * Requests may be in flight together and are answered in any order; what must be ordered, await. A buffer is the
 * connection's until the promise settles. When the connection is lost every request in flight fails with the reason,
 * and the outcome of writes among them is unknown; there is no reconnecting here.
 */
export class NbdConnection implements AsyncDisposable {
  readonly info: NbdExportInfo;
  readonly #transmission: Transmission;

  private constructor(info: NbdExportInfo, transmission: Transmission) {
    this.info = info;
    this.#transmission = transmission;
  }

  /**
   * Negotiates an export over a stream.
   *
   * @param stream - fresh, or what opens one; it is closed by a failure
   * @throws BlockError `ENOENT` there is no such export; `EPROTO` the server broke the protocol; `ECONNRESET` it closed
   *   the connection; `ETIMEDOUT` it did not answer; `ENOTSUP` it wants TLS; or what else it answered
   */
  static async open(
    stream: ByteStream | OpenStream,
    options: NbdConnectionOptions = {},
  ): Promise<NbdConnection> {
    const { env = realEnv(), requestsMax = REQUESTS_MAX, requestTimeoutMs = 0 } = options;
    if (!Number.isSafeInteger(requestsMax) || requestsMax < 1) {
      throw new RangeError(`requestsMax ${requestsMax} is not an integer of 1 or more`);
    }
    const open = typeof stream === "function" ? stream : () => Promise.resolve(stream);
    const { info, conversation } = await establish(
      open,
      env,
      options.exportName ?? "",
      options.negotiationTimeoutMs ?? NEGOTIATION_TIMEOUT_MS,
      options.signal,
    );
    const owner = { answered: nothing, lost: failAll };
    const parts = { stream: conversation.stream, env, owner, requestsMax, requestTimeoutMs };
    const transmission = new Transmission(parts);
    conversation.handOver(transmission);
    return new NbdConnection(info, transmission);
  }

  /** Why the connection ended, `undefined` as long as it is usable. */
  get failure(): BlockError | undefined {
    return this.#transmission.failure;
  }

  /** Requests that were sent and not answered. */
  get inFlight(): number {
    return this.#transmission.inFlight;
  }

  /** Fills the buffer. @throws BlockError what the server answers; why the connection was lost */
  read(offset: number, buffer: Uint8Array, options: { signal?: AbortSignal } = {}): Promise<void> {
    const { length } = buffer;
    return this.#send({
      command: NbdCommand.READ,
      operation: "read",
      offset,
      length,
      buffer,
      signal: options.signal,
    });
  }

  /** Writes the buffer. @throws BlockError `EROFS` the export is read-only; `ENOTSUP` it has no FUA; as {@link read} */
  write(offset: number, buffer: Uint8Array, options: NbdWriteOptions = {}): Promise<void> {
    return this.#send({
      command: NbdCommand.WRITE,
      operation: "write",
      offset,
      length: buffer.length,
      flags: options.fua === true ? NbdCommandFlag.FUA : 0,
      payload: [buffer],
      signal: options.signal,
    });
  }

  /** Writes zeroes. @throws BlockError `ENOTSUP` the server has no such command; as {@link write} */
  writeZeroes(offset: number, length: number, options: NbdZeroOptions = {}): Promise<void> {
    const fua = options.fua === true ? NbdCommandFlag.FUA : 0;
    const noHole = options.noHole === true ? NbdCommandFlag.NO_HOLE : 0;
    const fastZero = options.fastZero === true ? NbdCommandFlag.FAST_ZERO : 0;
    return this.#send({
      command: NbdCommand.WRITE_ZEROES,
      operation: "writeZeroes",
      offset,
      length,
      flags: fua | noHole | fastZero,
      signal: options.signal,
    });
  }

  /** Discards a range. @throws BlockError as {@link writeZeroes} */
  trim(offset: number, length: number, options: NbdWriteOptions = {}): Promise<void> {
    return this.#send({
      command: NbdCommand.TRIM,
      operation: "trim",
      offset,
      length,
      flags: options.fua === true ? NbdCommandFlag.FUA : 0,
      signal: options.signal,
    });
  }

  /** Asks the server to read ahead. @throws BlockError as {@link writeZeroes} */
  cache(offset: number, length: number): Promise<void> {
    return this.#send({ command: NbdCommand.CACHE, operation: "cache", offset, length });
  }

  /** Makes every write stable that was answered before this call. @throws BlockError `ENOTSUP`; as {@link read} */
  flush(): Promise<void> {
    return this.#send({ command: NbdCommand.FLUSH, operation: "flush", offset: 0, length: 0 });
  }

  /** Disconnects softly: waits for what is in flight and tells the server. Does not flush. */
  close(): Promise<void> {
    return this.#transmission.finish();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #send(parts: ClientRequestParts): Promise<void> {
    checkIntegers(parts);
    const request = new ClientRequest(parts);
    const refusal = refusalOf(request, this.info);
    if (refusal === undefined) this.#transmission.submit(request);
    else request.fail(refusal);
    return request.promise;
  }
}

function checkIntegers({ operation, offset, length }: ClientRequestParts): void {
  for (const value of [offset, length]) {
    if (!Number.isSafeInteger(value) || value < 0) {
      throw new RangeError(`${operation} of ${length} bytes at ${offset}: not safe integers`);
    }
  }
}

/** What is wrong with a request to this export. */
function refusalOf(request: ClientRequest, info: NbdExportInfo): BlockError | undefined {
  const { command, offset, length } = request;
  if (request.isChange && info.isReadOnly) {
    return request.error("EROFS", "the export is read-only");
  }
  if (!knows(info, request)) return request.error("ENOTSUP", "the server does not offer it");
  if (offset + length > info.size) {
    return request.error("EINVAL", `the export has ${info.size} bytes`);
  }
  const isTransfer = command === NbdCommand.READ || command === NbdCommand.WRITE;
  const lengthMax = isTransfer ? maxPayload(info) : 2 ** 32 - 1;
  if (length > lengthMax) return request.error("EINVAL", `more than ${lengthMax} bytes`);
  return undefined;
}

function knows(info: NbdExportInfo, { command, flags }: ClientRequest): boolean {
  if ((flags & NbdCommandFlag.FUA) !== 0 && !info.canFua) return false;
  if ((flags & NbdCommandFlag.FAST_ZERO) !== 0 && !info.canFastZero) return false;
  switch (command) {
    case NbdCommand.WRITE_ZEROES:
      return info.canWriteZeroes;
    case NbdCommand.TRIM:
      return info.canTrim;
    case NbdCommand.CACHE:
      return info.canCache;
    case NbdCommand.FLUSH:
      return info.canFlush;
    default:
      return true;
  }
}

function failAll(
  error: BlockError,
  unanswered: readonly ClientRequest[],
  waiting: readonly ClientRequest[],
): void {
  for (const request of [...unanswered, ...waiting]) request.fail(error);
}

function nothing(): void {
  // One connection keeps no account of what was answered.
}
