import type { Env } from "@blocklayer/env";
import { assert } from "@blocklayer/errors";
import { alignDown, alignUp } from "@blocklayer/offsets";

/** What a tracked request does. */
export type RequestKind = "read" | "write" | "zeroes" | "discard" | "truncate";

/** A request that has begun and not ended, and the range in which it minds others. */
export class TrackedRequest {
  readonly kind: RequestKind;
  /** Bytes, aligned as the driver receives it. */
  readonly offset: number;
  readonly length: number;
  /** The range that counts for conflicts: the request itself until it serialises on something larger. */
  overlapOffset: number;
  overlapEnd: number;
  /** Whether nobody else may overlap. */
  serialising: boolean = false;
  /** Set from the moment it begins to wait until it runs again. */
  isWaiting: boolean = false;
  /** Resume those who wait for this one, first come first. */
  readonly waiters: (() => void)[] = [];

  constructor(kind: RequestKind, offset: number, length: number) {
    this.kind = kind;
    this.offset = offset;
    this.length = length;
    this.overlapOffset = offset;
    this.overlapEnd = offset + length;
  }

  conflicts(other: TrackedRequest): boolean {
    // The overlap of the two as a range: an empty one, also of an empty request, is none.
    const start = Math.max(this.overlapOffset, other.overlapOffset);
    const end = Math.min(this.overlapEnd, other.overlapEnd);
    return (this.serialising || other.serialising) && start < end;
  }
}

/**
 * The requests of one node that have begun and not ended, and the rule by which they wait for each other.
 *
 * Two requests conflict when they overlap and at least one serialises. Whoever begins to conflict waits until the
 * other has ended, then looks again. A request that itself waits is skipped, since it has not been issued and looks
 * again before it is: that is what keeps two requests from waiting for each other.
 *
 * @see spec/graph.md section 7.4
 */
export class RequestTracker {
  readonly #env: Env;
  readonly #requests = new Set<TrackedRequest>();
  /** Number of serialising requests. While it is 0 nobody needs to look for conflicts. */
  serialisingCount: number = 0;

  constructor(env: Env) {
    this.#env = env;
  }

  /** The requests that have begun, in the order in which they did. */
  get requests(): Iterable<TrackedRequest> {
    return this.#requests;
  }

  begin(kind: RequestKind, offset: number, length: number): TrackedRequest {
    const request = new TrackedRequest(kind, offset, length);
    this.#requests.add(request);
    return request;
  }

  /** Takes the request out and resumes who waited for it, in the order in which they began to wait. */
  end(request: TrackedRequest): void {
    assert(this.#requests.delete(request), "a request ends once");
    if (request.serialising) this.serialisingCount -= 1;
    for (const resume of request.waiters) this.#env.wake(resume, "overlapping request");
  }

  /**
   * Widens the range of the request to `alignment` and lets nobody overlap from here on. Those who do already are
   * not waited for: {@link waitForConflicts} follows.
   *
   * @param alignment - bytes
   */
  serialise(request: TrackedRequest, alignment: number): void {
    const start = alignDown(request.offset, alignment);
    const end = alignUp(request.offset + request.length, alignment);
    request.overlapOffset = Math.min(request.overlapOffset, start);
    request.overlapEnd = Math.max(request.overlapEnd, end);
    if (request.serialising) return;
    request.serialising = true;
    this.serialisingCount += 1;
  }

  /** Whether the request would have to wait now. */
  hasConflict(request: TrackedRequest): boolean {
    return this.#findConflict(request) !== undefined;
  }

  /**
   * Waits until no conflicting request is in flight.
   *
   * @returns `undefined` when there is nothing to wait for
   */
  waitForConflicts(request: TrackedRequest, signal?: AbortSignal): Promise<void> | undefined {
    if (this.serialisingCount === 0) return undefined;
    const conflict = this.#findConflict(request);
    return conflict === undefined ? undefined : this.#wait(request, conflict, signal);
  }

  async #wait(
    request: TrackedRequest,
    first: TrackedRequest,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    let conflict: TrackedRequest | undefined = first;
    while (conflict !== undefined) {
      request.isWaiting = true;
      try {
        await untilEnded(conflict, signal);
      } finally {
        request.isWaiting = false;
      }
      // Whoever comes from here on finds this request in flight, so that nobody conflicts stays true.
      conflict = this.#findConflict(request);
    }
  }

  #findConflict(request: TrackedRequest): TrackedRequest | undefined {
    if (this.serialisingCount === 0) return undefined;
    for (const other of this.#requests) {
      if (other !== request && !other.isWaiting && other.conflicts(request)) return other;
    }
    return undefined;
  }
}

function untilEnded(request: TrackedRequest, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(signal.reason);
      return;
    }
    const resume = (): void => {
      signal?.removeEventListener("abort", abort);
      resolve();
    };
    const abort = (): void => {
      const index = request.waiters.indexOf(resume);
      if (index >= 0) request.waiters.splice(index, 1);
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", abort, { once: true });
    request.waiters.push(resume);
  });
}
