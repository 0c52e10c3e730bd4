import type { ClientRequest } from "./client-request.ts";

/**
 * Requests that wait for their turn or for a connection, in order. One whose signal aborts leaves the line and
 * rejects with the signal's reason.
 */
export class RequestLine {
  readonly #waiting = new Map<ClientRequest, (() => void) | undefined>();

  get size(): number {
    return this.#waiting.size;
  }

  push(request: ClientRequest): void {
    const { signal } = request;
    if (signal === undefined) {
      this.#waiting.set(request, undefined);
      return;
    }
    if (signal.aborted) {
      request.fail(signal.reason);
      return;
    }
    const abort = (): void => {
      this.#waiting.delete(request);
      request.fail(signal.reason);
    };
    signal.addEventListener("abort", abort, { once: true });
    this.#waiting.set(request, abort);
  }

  /** Takes the request that has waited longest. */
  shift(): ClientRequest | undefined {
    for (const request of this.#waiting.keys()) {
      this.#leave(request);
      return request;
    }
    return undefined;
  }

  /** Takes all, in order. */
  takeAll(): ClientRequest[] {
    const requests = [...this.#waiting.keys()];
    for (const request of requests) this.#leave(request);
    return requests;
  }

  #leave(request: ClientRequest): void {
    const abort = this.#waiting.get(request);
    if (abort !== undefined) request.signal?.removeEventListener("abort", abort);
    this.#waiting.delete(request);
  }
}
