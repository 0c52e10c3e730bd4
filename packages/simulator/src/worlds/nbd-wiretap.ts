import {
  NbdCommand,
  NbdCommandFlag,
  NbdErrno,
  NbdTransmissionFlag,
} from "@blocklayer/nbd-protocol";
import type { SimulatedLink } from "../net/simulated-link.ts";
import type { Simulation } from "../simulation.ts";
import {
  ClientFrames,
  type SeenExport,
  type SeenReply,
  type SeenRequest,
  ServerFrames,
} from "./nbd-frames.ts";

/** A request on its way, and what became of it. */
export interface Tapped extends SeenRequest {
  /** Position among the requests of the connection. */
  readonly index: number;
  reply: SeenReply | undefined;
  /** Called when the server answers that it is done. */
  succeeded?: () => void;
}

/** Bytes of the longest READ or WRITE that servers take. */
const PAYLOAD_MAX = 32 * 1024 * 1024;
const ERRNOS: ReadonlySet<number> = new Set(Object.values(NbdErrno));

/**
 * Listens on one connection, in both directions, and judges it by the protocol alone:
 * every reply answers a request that has arrived, once; what lies outside of the export or would write to one that is
 * read-only fails with the error that the specification names.
 *
 * @see spec/nbd.md sections 3, 4 and 10; docs/reliability.md section 3.2, NS-1 and NS-2
 */
export class NbdWiretap {
  /** What the client was told of the export by the last information that was sent. */
  told: SeenExport | undefined;
  /** The client said goodbye. */
  hasDisconnected: boolean = false;
  readonly link: SimulatedLink;
  readonly requests: Tapped[] = [];
  /** Bytes of the server after which nothing is what it sent. */
  wrongFrom: number = Number.POSITIVE_INFINITY;
  readonly #simulation: Simulation;
  readonly #pending = new Map<string, Tapped>();
  readonly #onRequest: (request: Tapped) => void;
  readonly #client = new ClientFrames();
  readonly #server: ServerFrames;
  readonly #isStranger: boolean;
  /** Bytes that have arrived at each side. */
  #atServer = 0;
  #atClient = 0;

  /**
   * @param onRequest - told of each request as it is sent
   * @param isStranger - the client may send what it likes
   */
  constructor(
    simulation: Simulation,
    link: SimulatedLink,
    onRequest: (request: Tapped) => void,
    isStranger: boolean = false,
  ) {
    this.#simulation = simulation;
    this.link = link;
    this.#onRequest = onRequest;
    this.#isStranger = isStranger;
    this.#server = new ServerFrames({
      told: (seen) => {
        this.told = seen;
      },
      dataLength: (cookie) => this.#dataLength(cookie),
      reply: (reply) => this.#replied(reply),
      nonsense: (what) => this.#nonsense(what),
    });
    link.client.onSend = (bytes) => {
      for (const request of this.#client.push(bytes)) this.#requested(request);
      return bytes;
    };
    link.server.onSend = (bytes) => {
      this.#server.push(bytes);
      return bytes;
    };
    link.server.onDeliver = (bytes, isOver) => {
      if (!isOver) this.#atServer += bytes.length;
    };
    link.client.onDeliver = (bytes, isOver) => {
      if (!isOver) this.#atClient += bytes.length;
    };
  }

  /** Where what the server sends has frames, in bytes that were sent before. */
  get frameStarts(): ReadonlySet<number> {
    return this.#server.starts;
  }

  /** Whether the reply to a request has arrived at the client as a whole. */
  isAnswered({ reply }: { readonly reply: SeenReply | undefined }): boolean {
    return reply !== undefined && reply.endsAt <= Math.min(this.#atClient, this.wrongFrom);
  }

  #requested(request: SeenRequest): void {
    if (request.type === NbdCommand.DISC) {
      this.hasDisconnected = true;
      const open = this.#unanswered();
      if (!this.#isStranger && open > 0) {
        this.#fail("goodbye too early", `${open} requests are not answered`);
      }
      return;
    }
    if (this.#pending.has(request.cookie) && !this.#isStranger) {
      this.#fail("cookie in use", `request ${request.cookie}`);
    }
    const tapped: Tapped = { ...request, index: this.requests.length, reply: undefined };
    this.requests.push(tapped);
    this.#pending.set(request.cookie, tapped);
    this.#onRequest(tapped);
  }

  #unanswered(): number {
    return this.requests.filter((request) => !this.isAnswered(request)).length;
  }

  #dataLength(cookie: string): number | undefined {
    const request = this.#pending.get(cookie);
    if (request === undefined) return undefined;
    return request.type === NbdCommand.READ ? request.length : 0;
  }

  #replied(reply: SeenReply): void {
    const request = this.#pending.get(reply.cookie) as Tapped;
    this.#pending.delete(reply.cookie);
    request.reply = reply;
    if (reply.error === NbdErrno.SUCCESS) request.succeeded?.();
    if (request.endsAt > this.#atServer) {
      this.#fail("reply before its request", `request ${reply.cookie} has not arrived`);
    }
    if (!ERRNOS.has(reply.error)) this.#fail("unknown error number", String(reply.error));
    const expected = this.#expectedError(request);
    if (expected === undefined || reply.error === NbdErrno.ESHUTDOWN) return;
    if (reply.error !== expected) {
      this.#fail(
        "request not refused",
        `${describe(request)} was answered ${reply.error}, not ${expected}`,
      );
    }
  }

  /** The error that a request must be answered with, `undefined` when it may succeed. */
  #expectedError({ type, offset, length, flags }: Tapped): number | undefined {
    const { told } = this;
    if (told === undefined) return undefined;
    const isChange = CHANGES.has(type);
    const isTransfer = type === NbdCommand.READ || type === NbdCommand.CACHE;
    if (isTransfer && length > PAYLOAD_MAX) return NbdErrno.EINVAL;
    if (isChange && (told.flags & NbdTransmissionFlag.READ_ONLY) !== 0) return NbdErrno.EPERM;
    if (type !== NbdCommand.FLUSH && offset + length > told.size) {
      return isChange && type !== NbdCommand.TRIM ? NbdErrno.ENOSPC : NbdErrno.EINVAL;
    }
    const allowed = ALLOWED_FLAGS.get(type);
    if (allowed === undefined || (flags & ~allowed) !== 0) return NbdErrno.EINVAL;
    return undefined;
  }

  #nonsense(what: string): void {
    // After nonsense of the client's nobody knows where its requests begin.
    if (this.#client.isNonsense) return;
    this.#fail("reply to nothing", `the server sent ${what} that answers no request`);
  }

  #fail(kind: string, message: string): void {
    this.#simulation.fail(kind, `${this.link.name}: ${message}`);
  }
}

/** Commands that change content. */
export const CHANGES: ReadonlySet<number> = new Set([
  NbdCommand.WRITE,
  NbdCommand.WRITE_ZEROES,
  NbdCommand.TRIM,
]);
const { FUA, NO_HOLE, FAST_ZERO } = NbdCommandFlag;

/** What is left of the flags for the commands that are known. */
const ALLOWED_FLAGS: ReadonlyMap<number, number> = new Map([
  [NbdCommand.READ, FUA],
  [NbdCommand.WRITE, FUA],
  [NbdCommand.FLUSH, FUA],
  [NbdCommand.TRIM, FUA],
  [NbdCommand.CACHE, FUA],
  [NbdCommand.WRITE_ZEROES, FUA | NO_HOLE | FAST_ZERO],
]);

function describe({ type, offset, length, flags }: SeenRequest): string {
  return `request of type ${type}, flags ${flags}, ${length} bytes at ${offset}`;
}
