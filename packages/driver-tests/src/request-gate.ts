import { completed } from "@blocklayer/driver";
import { type Random, settleTurn } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import { expect } from "./expect.ts";

/** A request to a child, on its way through a {@link RequestGate}. */
export interface GatedRequest {
  /** Counts from 1 in the order in which the requests came. */
  readonly number: number;
  /** Name of the edge. */
  readonly child: string;
  readonly operation: string;
  /** Bytes; 0 for a flush. */
  readonly offset: number;
  /** Bytes; 0 for a flush. */
  readonly length: number;
}

/** Which request fails, and how. */
export interface GateFailure {
  /** The request's number, from 1, counted from when the failure was set. */
  readonly at: number;
  /** Whether all after it fail too. Default `false`. */
  readonly persistent?: boolean;
  /** An errno name. Default `"EIO"`. */
  readonly code?: string;
  /** `"before"`: nothing was done. `"after"`: the request was carried out and its answer lost. Default `"before"`. */
  readonly when?: "before" | "after";
}

interface HeldRequest {
  readonly request: GatedRequest;
  resume(): void;
}

/** In which order held requests go on: which of the `count` waiting ones is next. */
export type ReleaseOrder = (count: number) => number;

/** The orders in which a conforming driver works all the same. */
export const releaseOrders: {
  readonly first: ReleaseOrder;
  readonly last: ReleaseOrder;
  readonly random: (random: Random) => ReleaseOrder;
} = {
  first: () => 0,
  last: (count) => count - 1,
  random: (random) => (count) => random.below(count),
};

/**
 * Where all requests of a driver to its children pass: it counts them, makes one fail, holds them and lets
 * them go in any order, or lets each complete in a later turn.
 */
export class RequestGate {
  /** The requests since {@link RequestGate.reset}, oldest first. */
  readonly log: GatedRequest[] = [];
  /** Whether requests complete within the call when the child can, or always in a later turn. */
  completion: "same-turn" | "later-turn" = "same-turn";
  /** Whether a failure that was set has happened. */
  hasFailed: boolean = false;
  #failure: GateFailure | undefined;
  #holding: boolean = false;
  readonly #held: HeldRequest[] = [];

  /** Number of requests that wait for a release. */
  get heldCount(): number {
    return this.#held.length;
  }

  /** Forgets the log and the failure, and lets go of what is held. */
  reset(): void {
    this.log.length = 0;
    this.#failure = undefined;
    this.hasFailed = false;
    this.releaseAll();
  }

  /** Takes a failure back that was set; {@link RequestGate.hasFailed} stays. */
  disarm(): void {
    this.#failure = undefined;
  }

  /** Makes a request fail; counting starts anew. */
  failAt(failure: GateFailure): void {
    this.log.length = 0;
    this.hasFailed = false;
    this.#failure = failure;
  }

  /** Holds the requests from here on. */
  hold(): void {
    this.#holding = true;
  }

  /** Lets one held request go on. */
  release(index = 0): void {
    const [held] = this.#held.splice(index, 1);
    expect(held !== undefined, () => `no request is held at ${index}`);
    held.resume();
  }

  /** Lets everything go and holds nothing more. */
  releaseAll(): void {
    this.#holding = false;
    for (const held of this.#held.splice(0)) held.resume();
  }

  /**
   * Lets held requests go one by one, with a turn between, until `work` is settled; then holds nothing more.
   *
   * @throws ConformanceError `work` waits although nothing is held
   */
  async releaseUntil(work: Promise<unknown>, order: ReleaseOrder): Promise<void> {
    let isSettled = false;
    const note = (): void => {
      isSettled = true;
    };
    work.then(note, note);
    let idleTurns = 0;
    for (await settleTurn(); !isSettled; await settleTurn()) {
      // No request ever came this way: the driver waits for the world outside, which takes its own time.
      if (this.log.length === 0) await Promise.allSettled([work]);
      idleTurns = this.#held.length === 0 ? idleTurns + 1 : 0;
      expect(
        idleTurns < IDLE_TURNS_MAX,
        "a request waits although its children answered everything",
      );
      if (this.#held.length > 0) this.release(order(this.#held.length));
    }
    this.releaseAll();
  }

  /** Lets a request through; called by the children. */
  pass<T>(request: Omit<GatedRequest, "number">, run: () => Promise<T>): Promise<T> {
    const entry: GatedRequest = { ...request, number: this.log.length + 1 };
    this.log.push(entry);
    const failure = this.#takeFailure(entry.number);
    if (!this.#holding && this.completion === "same-turn" && failure === undefined) return run();
    return this.#passSlowly(entry, failure, run);
  }

  async #passSlowly<T>(
    request: GatedRequest,
    failure: GateFailure | undefined,
    run: () => Promise<T>,
  ): Promise<T> {
    if (this.#holding) {
      await new Promise<void>((resume) => {
        this.#held.push({ request, resume });
      });
    }
    if (this.completion === "later-turn") await settleTurn();
    if (failure === undefined) return run();
    if (failure.when === "after") await run();
    await completed;
    const { operation, offset, length, child } = request;
    throw new BlockError(failure.code ?? "EIO", `${operation} of ${child} failed as told`, {
      node: child,
      operation,
      offset,
      length,
    });
  }

  #takeFailure(number: number): GateFailure | undefined {
    const failure = this.#failure;
    if (failure === undefined) return undefined;
    const isMeant = number === failure.at || (failure.persistent === true && number > failure.at);
    if (isMeant) this.hasFailed = true;
    return isMeant ? failure : undefined;
  }
}

const IDLE_TURNS_MAX = 1000;
