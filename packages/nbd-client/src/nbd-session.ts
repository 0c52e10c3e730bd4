import type { Env } from "@blocklayer/env";
import { BlockError, toBlockError } from "@blocklayer/errors";
import { NbdCommand } from "@blocklayer/nbd-protocol";
import { ClientRequest } from "./client-request.ts";
import { switchedOff } from "./deadline.ts";
import { DurabilityLedger } from "./durability-ledger.ts";
import {
  type Established,
  establish,
  NEGOTIATION_TIMEOUT_MS,
  type OpenStream,
} from "./establish.ts";
import { exportChange, type NbdExportInfo } from "./export-info.ts";
import { RequestLine } from "./request-line.ts";
import { Transmission, type TransmissionOwner } from "./transmission.ts";

const BACKOFF_MIN_MS = 1000;
const BACKOFF_MAX_MS = 16_000;

export interface SessionOptions {
  readonly open: OpenStream;
  readonly exportName: string;
  readonly env: Env;
  readonly nodeName: string;
  /** How long requests wait for a new connection; 0: not at all. */
  readonly reconnectDelayMs: number;
  /** How long the first connection is tried for; 0: once. */
  readonly openTimeoutMs: number;
  readonly requestsMax: number;
  readonly requestTimeoutMs: number;
}

/**
 * What requests meet:
 *
 * | state | a new request | ends with |
 * | --- | --- | --- |
 * | `connected` | is sent | a loss: `waiting`, or `failing` without a reconnect delay |
 * | `waiting` | waits | a connection: `connected`; the delay or a cancellation: `failing` |
 * | `failing` | fails with `EIO` | a connection: `connected` |
 * | `refused` | fails with `EIO` | nothing: another disk is there now |
 * | `closed` | fails with `ESHUTDOWN` | nothing |
 */
type State = "connected" | "waiting" | "failing" | "refused" | "closed";

/**
 * A disk behind one connection at a time, which is made anew when it is lost.
 *
 * From a loss on it tries to connect: at once, then after 1, 2, 4, 8, 16, 16, … seconds, as long as it is open; the
 * pauses start from the beginning once a server has answered a request. The delay that requests wait counts from the
 * loss of a connection that answered, or on which nobody asked.
 *
 * Requests without an answer are repeated on the new connection where that cannot harm:
 *
 * - what was never sent, and reads: always;
 * - writes, write-zeroes and discards: they may have been carried out, and doing so twice leaves the same bytes,
 *   unless a later overlapping change was acknowledged meanwhile, which the repetition would undo: such a one
 *   fails with `EIO`;
 * - flushes: unless acknowledged changes are in doubt ({@link DurabilityLedger}); then they and all later
 *   ones fail with `EIO`.
 *
 * A new connection must show the disk that was there: the same size, as writable, with the same abilities. Else every
 * request fails from then on.
 *
 * What NBD cannot tell: whether the server still works on a request of the lost connection and carries it
 * out after newer ones. Cutting the old connection before a new one is made leaves that to the server's buffers.
 *
 * @see spec/nbd.md section 11; docs/reliability.md section 3.2, NC-2 and NC-3
 */
export class NbdSession implements TransmissionOwner {
  readonly info: NbdExportInfo;
  /** How long requests wait for a new connection. A reopen may change it. */
  reconnectDelayMs: number;
  readonly #options: SessionOptions;
  readonly #ledger: DurabilityLedger = new DurabilityLedger();
  readonly #line: RequestLine = new RequestLine();
  readonly #closing: AbortController = new AbortController();
  #transmission: Transmission | undefined;
  #state: State = "connected";
  #reason: BlockError | undefined;
  #backoffMs: number = 0;
  /** Whether the present connection, or the last one, answered a request. */
  #hasAnswered: boolean = false;
  #connectedAtMs: number = Number.NEGATIVE_INFINITY;
  #patience: AbortController | undefined;
  #reconnecting: Promise<void> | undefined;
  #closed: Promise<void> | undefined;

  private constructor(options: SessionOptions, established: Established) {
    this.#options = options;
    this.reconnectDelayMs = options.reconnectDelayMs;
    this.info = established.info;
    this.#connect(established);
  }

  /**
   * Connects for the first time.
   *
   * @throws BlockError the error of the last attempt, as `NbdConnection.open`
   */
  static async open(options: SessionOptions): Promise<NbdSession> {
    const { env, openTimeoutMs } = options;
    const deadlineMs = env.clock.now() + openTimeoutMs;
    for (let backoffMs = BACKOFF_MIN_MS; ; backoffMs = Math.min(backoffMs * 2, BACKOFF_MAX_MS)) {
      const restMs = deadlineMs - env.clock.now();
      const attemptMs =
        openTimeoutMs === 0 ? NEGOTIATION_TIMEOUT_MS : Math.min(restMs, NEGOTIATION_TIMEOUT_MS);
      try {
        return new NbdSession(
          options,
          await establish(options.open, env, options.exportName, attemptMs),
        );
      } catch (error) {
        const leftMs = deadlineMs - env.clock.now();
        if (leftMs <= 0 || !mayPass(error)) throw error;
        await env.clock.sleep(Math.min(backoffMs, leftMs));
        // The deadline is the end of trying, not the time of one last attempt.
        if (env.clock.now() >= deadlineMs) throw error;
      }
    }
  }

  /** Acknowledged changes that are not known to be stable. */
  get unflushed(): number {
    return this.#ledger.unflushed;
  }

  submit(request: ClientRequest): Promise<void> {
    if (request.command === NbdCommand.FLUSH) {
      this.#ledger.beginFlush(request);
      if (this.#failsFlush(request)) return request.promise;
    }
    switch (this.#state) {
      case "connected":
        this.#transmission?.submit(request);
        break;
      case "waiting":
        this.#line.push(request);
        break;
      case "closed":
        request.fail(request.error("ESHUTDOWN", "the node was closed"));
        break;
      default:
        this.#failLost(request);
    }
    return request.promise;
  }

  /** Fails what waits for a connection, and what comes before there is one. */
  cancelWaiting(): void {
    if (this.#state !== "waiting") return;
    this.#stopWaiting();
  }

  /** Flushes what is not stable and disconnects softly. @throws BlockError `EIO` the flush failed */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  answered(request: ClientRequest, isSuccess: boolean): void {
    this.#hasAnswered = true;
    if (isSuccess) this.#ledger.answered(request);
  }

  lost(
    error: BlockError,
    unanswered: readonly ClientRequest[],
    waiting: readonly ClientRequest[],
  ): void {
    this.#transmission = undefined;
    this.#reason = error;
    this.#ledger.lost(this.info.canMultiConnection || !this.info.canFlush);
    const isIdle = unanswered.length === 0 && waiting.length === 0;
    if (this.#state !== "closed") this.#beginWaiting(isIdle);
    for (const request of [...unanswered, ...waiting]) this.#repeat(request);
    if (this.#state !== "closed") this.#reconnecting ??= this.#reconnect();
  }

  /** @param isIdle - no request was under way on the connection that was lost */
  #beginWaiting(isIdle: boolean): void {
    const ageMs = this.#options.env.clock.now() - this.#connectedAtMs;
    const hasLived = this.#hasAnswered || ageMs >= BACKOFF_MAX_MS;
    if (hasLived) this.#backoffMs = 0;
    // A server that accepts connections and answers nothing does not prolong the wait of those who ask it.
    if (hasLived || isIdle) {
      this.#patience?.abort();
      this.#patience = undefined;
      if (this.reconnectDelayMs > 0) this.#startPatience();
    }
    this.#state = this.#patience === undefined ? "failing" : "waiting";
  }

  #startPatience(): void {
    const patience = new AbortController();
    this.#patience = patience;
    const { clock } = this.#options.env;
    clock.sleep(this.reconnectDelayMs, patience.signal).then(() => {
      if (this.#patience !== patience) return;
      this.#patience = undefined;
      if (this.#state === "waiting") this.#stopWaiting();
    }, switchedOff);
  }

  #stopWaiting(): void {
    this.#patience?.abort();
    this.#patience = undefined;
    this.#state = "failing";
    for (const request of this.#line.takeAll()) this.#failLost(request);
  }

  /** Decides what becomes of a request whose connection was lost. */
  #repeat(request: ClientRequest): void {
    if (this.#state !== "waiting") {
      this.#failLost(request);
    } else if (request.burst >= 0 && request.isOvertaken) {
      const reason = "the connection was lost, and repeating it could undo a later request";
      request.fail(request.error("EIO", reason, this.#reason));
    } else if (request.command !== NbdCommand.FLUSH || !this.#failsFlush(request)) {
      request.isOvertaken = false;
      request.burst = -1;
      this.#line.push(request);
    }
  }

  #failsFlush(request: ClientRequest): boolean {
    const { doubtful } = this.#ledger;
    if (doubtful === 0) return false;
    const reason = `the connection was lost with ${doubtful} acknowledged changes that were not flushed`;
    request.fail(request.error("EIO", reason, this.#reason));
    return true;
  }

  #failLost(request: ClientRequest): void {
    const reason = this.#reason?.message ?? "there is no connection";
    request.fail(request.error("EIO", reason, this.#reason));
  }

  async #reconnect(): Promise<void> {
    const found = await this.#nextConnection();
    this.#reconnecting = undefined;
    if (found !== undefined) this.#resume(found);
  }

  /** Tries until there is a connection; `undefined` when the node is closed. */
  async #nextConnection(): Promise<Established | undefined> {
    const { env, open, exportName } = this.#options;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      const pauseMs = this.#backoffMs;
      this.#backoffMs = Math.min(Math.max(pauseMs * 2, BACKOFF_MIN_MS), BACKOFF_MAX_MS);
      try {
        if (pauseMs > 0) await env.clock.sleep(pauseMs, signal);
        return await establish(open, env, exportName, NEGOTIATION_TIMEOUT_MS, signal);
      } catch (error) {
        // Requests that fail meanwhile tell the latest reason.
        if (!signal.aborted) this.#reason = toBlockError(error, "reconnecting failed");
      }
    }
    return undefined;
  }

  #resume(established: Established): void {
    const { exportName, nodeName } = this.#options;
    const change = exportChange(this.info, established.info);
    if (change !== undefined || this.#state === "closed") {
      established.conversation.cut();
      if (change === undefined) return;
      const context = { node: nodeName, exportName, operation: "nbd reconnect" };
      this.#reason = new BlockError(
        "EIO",
        `the export is another one after reconnecting: ${change}`,
        context,
        { hint: "close the node and open it again" },
      );
      this.#stopWaiting();
      this.#state = "refused";
      return;
    }
    const waiting = this.#line.takeAll();
    this.#state = "connected";
    this.#connectedAtMs = this.#options.env.clock.now();
    this.#hasAnswered = false;
    this.#connect(established);
    for (const request of waiting) {
      // The new connection may be lost before all were submitted.
      if (this.#transmission === undefined) this.#repeat(request);
      else this.#transmission.submit(request);
    }
  }

  #connect({ conversation }: Established): void {
    const { env, requestsMax, requestTimeoutMs } = this.#options;
    const { stream } = conversation;
    this.#transmission = new Transmission({
      stream,
      env,
      owner: this,
      requestsMax,
      requestTimeoutMs,
    });
    conversation.handOver(this.#transmission);
  }

  async #close(): Promise<void> {
    const transmission = this.#transmission;
    this.#state = "closed";
    this.#closing.abort(new BlockError("ESHUTDOWN", "the node was closed"));
    this.#patience?.abort();
    for (const request of this.#line.takeAll()) this.#failLost(request);
    let flush: ClientRequest | undefined;
    await transmission?.finish(() => {
      flush = this.#lastFlush();
      return flush;
    });
    await this.#reconnecting;
    await flush?.promise;
    const unsure = Math.max(this.#ledger.doubtful, this.unflushed);
    if (unsure > 0 && this.info.canFlush) this.#throwUnsure(unsure);
  }

  /** What makes acknowledged changes stable before the goodbye, `undefined` when that is not needed or no use. */
  #lastFlush(): ClientRequest | undefined {
    const { doubtful, unflushed } = this.#ledger;
    if (!this.info.canFlush || unflushed === 0 || doubtful > 0) return undefined;
    const request = new ClientRequest({
      command: NbdCommand.FLUSH,
      operation: "flush",
      offset: 0,
      length: 0,
      node: this.#options.nodeName,
    });
    this.#ledger.beginFlush(request);
    // Its failure is reported by `close`, once the connection has ended.
    request.promise.catch(switchedOff);
    return request;
  }

  #throwUnsure(count: number): never {
    throw new BlockError(
      "EIO",
      `closed while ${count} acknowledged changes are not known to be stable`,
      { node: this.#options.nodeName, operation: "close" },
      { cause: this.#reason },
    );
  }
}

/** Whether a first connection may succeed later: not when the server was understood and is not one for us. */
function mayPass(error: unknown): boolean {
  return !(error instanceof BlockError) || !FINAL.has(error.code);
}

const FINAL: ReadonlySet<string> = new Set(["EPROTO", "EFBIG", "EINVAL", "ENOTSUP", "EPERM"]);
