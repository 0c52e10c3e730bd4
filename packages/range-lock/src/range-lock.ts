import type { Env } from "@blocklayer/env";
import { assert } from "@blocklayer/errors";
import { type RangeHold, type RangeMode, RangeRequest } from "./range-request.ts";

export interface AcquireOptions {
  readonly mode: RangeMode;
  /** Aborting removes the waiter and rejects with the signal's reason; a range already granted stays granted. */
  readonly signal?: AbortSignal | undefined;
}

export interface WaitOptions {
  /** As which kind of request to wait. Default `"exclusive"`: for everybody. */
  readonly mode?: RangeMode | undefined;
  /** Aborting removes the waiter and rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Lets requests over byte ranges wait while an overlapping range is held.
 *
 * Two requests conflict when their ranges overlap and at least one is exclusive; a zero-length range conflicts
 * with nothing. A request waits for every conflicting request *made before it*, whether that one is held or
 * still waits, and for nothing else. From this follow: first come first served among conflicting requests, no
 * starvation of exclusive requests by shared ones, no delay for those who conflict with nobody, and no deadlock
 * among requests that each ask for one range. (Whoever holds a range and waits for a second one can still
 * deadlock with another who does; ask for one range that covers both.)
 *
 * A range is owned from the moment it is granted, which is before its waiter runs.
 *
 * Cost: one scan over all held and waiting requests per acquire and per release.
 */
export class RangeLock {
  readonly #env: Env;
  readonly #tag: string;
  /** Held and waiting, in the order in which they were made. */
  readonly #requests = new Set<RangeRequest>();
  #waiting: number = 0;

  /**
   * @param env - `wake` resumes waiters
   * @param name - names the lock in a trace; default `"range"`
   */
  constructor(env: Env, name = "range") {
    this.#env = env;
    this.#tag = `range-lock ${name}`;
  }

  /** Number of ranges that are held, zero-length ones included. */
  get held(): number {
    return this.#requests.size - this.#waiting;
  }

  /** Number of requests that wait, those of {@link RangeLock.waitUntilFree} included. */
  get waiting(): number {
    return this.#waiting;
  }

  /**
   * Takes a range, at once when it is free (the promise is resolved already), else when every conflicting
   * request made earlier is gone.
   *
   * @param offset - bytes from the start
   * @param length - bytes
   * @throws RangeError offset or length is not a safe integer of 0 or more, or their sum is not
   */
  acquire(offset: number, length: number, options: AcquireOptions): Promise<RangeHold> {
    const request = this.#request(offset, length, options.mode, true);
    if (options.signal?.aborted === true) return Promise.reject(options.signal.reason);
    if (request.blockers === 0) {
      this.#requests.add(request);
      return Promise.resolve(request);
    }
    return this.#wait(request, options.signal);
  }

  /**
   * Takes a range if no conflicting one is held or waited for.
   *
   * @param offset - bytes from the start
   * @param length - bytes
   * @returns `undefined` when {@link RangeLock.acquire} would have waited
   * @throws RangeError as {@link RangeLock.acquire}
   */
  tryAcquire(
    offset: number,
    length: number,
    options: Pick<AcquireOptions, "mode">,
  ): RangeHold | undefined {
    const request = this.#request(offset, length, options.mode, true);
    if (request.blockers > 0) return undefined;
    this.#requests.add(request);
    return request;
  }

  /**
   * Resolves when every conflicting request that was made before this call is gone, and takes nothing.
   *
   * Nobody waits for this waiter, and it does not wait for requests made after it: so it is never starved, and
   * the range may be held again when it resumes. Whoever needs the range itself uses
   * {@link RangeLock.acquire}.
   *
   * @param offset - bytes from the start
   * @param length - bytes
   * @throws RangeError as {@link RangeLock.acquire}
   */
  waitUntilFree(offset: number, length: number, options: WaitOptions = {}): Promise<void> {
    const request = this.#request(offset, length, options.mode ?? "exclusive", false);
    if (options.signal?.aborted === true) return Promise.reject(options.signal.reason);
    if (request.blockers === 0) return Promise.resolve();
    return this.#wait(request, options.signal).then(() => undefined);
  }

  #request(offset: number, length: number, mode: RangeMode, takes: boolean): RangeRequest {
    if (!(isSize(offset) && isSize(length) && isSize(offset + length))) {
      throw new RangeError(`offset ${offset}, length ${length} is not a range of bytes`);
    }
    const request = new RangeRequest(this.#owner, offset, length, mode, takes);
    for (const earlier of this.#requests) {
      if (earlier.conflicts(request)) request.blockers += 1;
    }
    return request;
  }

  #wait(request: RangeRequest, signal: AbortSignal | undefined): Promise<RangeHold> {
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        request.grant = undefined;
        this.#waiting -= 1;
        this.#remove(request);
        reject(signal?.reason);
      };
      request.grant = () => {
        signal?.removeEventListener("abort", abort);
        request.grant = undefined;
        this.#waiting -= 1;
        if (!request.takes) this.#requests.delete(request);
        this.#env.wake(() => resolve(request), this.#tag);
      };
      signal?.addEventListener("abort", abort, { once: true });
      this.#requests.add(request);
      this.#waiting += 1;
    });
  }

  readonly #owner = {
    released: (request: RangeRequest): void => {
      if (this.#requests.has(request)) this.#remove(request);
    },
    shrinking: (request: RangeRequest, newLength: number): void => {
      assert(this.#requests.has(request), "a released hold is not used any more");
      if (!(isSize(newLength) && newLength <= request.length)) {
        throw new RangeError(
          `new length ${newLength} is not an integer from 0 to ${request.length}`,
        );
      }
      this.#unblock(request, newLength);
      request.length = newLength;
    },
  };

  #remove(request: RangeRequest): void {
    this.#unblock(request, 0);
    this.#requests.delete(request);
  }

  /** Grants what is left without blockers once `request` covers only its first `newLength` bytes. */
  #unblock(request: RangeRequest, newLength: number): void {
    if (this.#waiting === 0) return;
    let isLater = false;
    for (const waiter of this.#requests) {
      if (waiter === request) {
        isLater = true;
        continue;
      }
      const freed =
        isLater &&
        waiter.grant !== undefined &&
        request.conflicts(waiter) &&
        !request.conflicts(waiter, newLength);
      if (!freed) continue;
      waiter.blockers -= 1;
      assert(waiter.blockers >= 0, "a waiter is blocked by requests that it counted");
      if (waiter.blockers === 0) waiter.grant?.();
    }
  }
}

function isSize(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}
