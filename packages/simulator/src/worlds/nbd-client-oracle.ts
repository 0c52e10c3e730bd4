import type { OracleKind, OracleOperation, RegisterOracle } from "../register-oracle.ts";
import type { GuestOracle } from "./guest.ts";

/** What memory holds that a guest has got back. */
const SPOILT = 0xa5;

/**
 * The oracle of a shared disk as one of its clients sees it.
 *
 * It knows what of this client runs, so that copies of requests that a lost connection left behind are allowed their
 * late effect: the protocol has nothing against them. Memory of a request that has ended is overwritten at once.
 */
export class NbdClientOracle implements GuestOracle {
  readonly cellSize: number;
  readonly #shared: RegisterOracle;
  /** Memory that the client may use again when its request has ended. */
  readonly #payloads = new Map<OracleOperation, Uint8Array>();
  readonly #own = new WeakSet<OracleOperation>();
  readonly #running = new Set<OracleOperation>();

  constructor(shared: RegisterOracle) {
    this.#shared = shared;
    this.cellSize = shared.cellSize;
  }

  begin(kind: OracleKind, offset: number, length: number): OracleOperation {
    const operation = this.#shared.begin(kind, offset, length);
    this.#running.add(operation);
    this.#own.add(operation);
    return operation;
  }

  payload(operation: OracleOperation): Uint8Array {
    const payload = this.#shared.payload(operation);
    this.#payloads.set(operation, payload);
    return payload;
  }

  end(operation: OracleOperation, succeeded: boolean, isStable: boolean = false): void {
    this.#running.delete(operation);
    this.#shared.end(operation, succeeded, isStable);
    this.#payloads.get(operation)?.fill(SPOILT);
    this.#payloads.delete(operation);
  }

  /** A flush of a node covers what went through this node: without any such it need not be sent. */
  beginFlush(): () => void {
    return this.#shared.beginFlush((operation) => this.#own.has(operation));
  }

  /** A flush is sent to a server that promises that it covers all connections. Call what this returns at its success. */
  beginSharedFlush(): () => void {
    return this.#shared.beginFlush();
  }

  check(read: OracleOperation, buffer: Uint8Array): string | undefined {
    return this.#shared.check(read, buffer);
  }

  /** A connection is lost. Each function is to be called when nothing of it can be carried out any more. */
  left(): (() => void)[] {
    return [...this.#running].map((operation) => this.#shared.linger(operation));
  }
}
