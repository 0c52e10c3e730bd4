import { BlockError } from "@blocklayer/errors";
import { NbdCommand, NbdCommandFlag } from "@blocklayer/nbd-protocol";

/** What is to be sent. */
export interface ClientRequestParts {
  /** See `NbdCommand`. */
  readonly command: number;
  /** The operation in the words of the caller's API, for errors. */
  readonly operation: string;
  /** Bytes. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  /** `NbdCommandFlag` bits. Default 0. */
  readonly flags?: number;
  /** Where the data of a READ goes. */
  readonly buffer?: Uint8Array;
  /** The data of a WRITE, sent from where it lies. */
  readonly payload?: readonly Uint8Array[];
  readonly signal?: AbortSignal | undefined;
  /** Name of the node, for errors. */
  readonly node?: string | undefined;
}

const NO_PAYLOAD: readonly Uint8Array[] = [];

/** A request from its submission to its end: what is sent, what became of it, and whom to tell. */
export class ClientRequest {
  readonly command: number;
  readonly operation: string;
  readonly offset: number;
  readonly length: number;
  readonly flags: number;
  readonly buffer: Uint8Array | undefined;
  readonly payload: readonly Uint8Array[];
  readonly signal: AbortSignal | undefined;
  readonly node: string | undefined;
  /** Settles once, when the outcome is known or will never be. */
  readonly promise: Promise<void>;
  /** Its place among the requests in flight: the lower half of the cookie. */
  slot: number = -1;
  /** The upper half of the cookie. */
  serial: number = 0;
  /** The burst that carried it, -1 while no byte of it was sent. */
  burst: number = -1;
  /** Of a flush: how many acknowledged changes it covers. */
  coverage: number = 0;
  /** A change of an overlapping range was sent after it and answered before it. */
  isOvertaken: boolean = false;
  #resolve: () => void = unset;
  #reject: (error: unknown) => void = unset;

  constructor(parts: ClientRequestParts) {
    this.command = parts.command;
    this.operation = parts.operation;
    this.offset = parts.offset;
    this.length = parts.length;
    this.flags = parts.flags ?? 0;
    this.buffer = parts.buffer;
    this.payload = parts.payload ?? NO_PAYLOAD;
    this.signal = parts.signal;
    this.node = parts.node;
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Whether it changes content. */
  get isChange(): boolean {
    const { command } = this;
    return (
      command === NbdCommand.WRITE ||
      command === NbdCommand.WRITE_ZEROES ||
      command === NbdCommand.TRIM
    );
  }

  /** Whether its answer says that the change is stable. */
  get isStable(): boolean {
    return (this.flags & NbdCommandFlag.FUA) !== 0;
  }

  overlaps(other: ClientRequest): boolean {
    return this.offset < other.offset + other.length && other.offset < this.offset + this.length;
  }

  succeed(): void {
    this.#resolve();
  }

  fail(error: unknown): void {
    this.#reject(error);
  }

  /** Returns an error that says what was asked for and where. */
  error(code: string, reason: string, cause?: unknown): BlockError {
    const { node, operation, offset, length } = this;
    const what =
      this.command === NbdCommand.FLUSH
        ? operation
        : `${operation} of ${length} bytes at ${offset}`;
    const context = { ...(node === undefined ? {} : { node }), operation, offset, length };
    return new BlockError(code, `${what} failed: ${reason}`, context, { cause });
  }
}

function unset(): void {
  // Replaced in the constructor before anybody can call it.
}
