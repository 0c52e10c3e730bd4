import { completed } from "@blocklayer/driver";
import type { Env } from "@blocklayer/env";

interface QueuedRequest {
  start(): void;
  reject(error: unknown): void;
}

/** The requests of a backend that arrived while its node was drained, in order. */
export class BackendQueue {
  readonly #env: Env;
  readonly #mayStart: () => boolean;
  readonly #requests: QueuedRequest[] = [];

  /** @param mayStart - whether the drained section is over */
  constructor(env: Env, mayStart: () => boolean) {
    this.#env = env;
    this.#mayStart = mayStart;
  }

  get length(): number {
    return this.#requests.length;
  }

  /**
   * Puts a request at the end. Aborting takes it out and rejects with the signal's reason.
   *
   * @param start - issues the request
   */
  add<T>(start: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        this.#requests.splice(this.#requests.indexOf(request), 1);
        reject(signal?.reason);
      };
      const request: QueuedRequest = {
        start: () => {
          signal?.removeEventListener("abort", abort);
          resolve(start());
        },
        reject: (error) => {
          signal?.removeEventListener("abort", abort);
          reject(error);
        },
      };
      signal?.addEventListener("abort", abort, { once: true });
      this.#requests.push(request);
    });
  }

  /** Starts the requests in order, unless a new drained section begins before it comes to it. */
  restart(): void {
    if (this.#requests.length === 0) return;
    // Not within the call that ends the drained section: other ends of it may follow in the same turn.
    this.#env.wake(() => void completed.then(() => this.#startAll()), "backend queue");
  }

  rejectAll(error: () => unknown): void {
    for (const request of this.#requests.splice(0)) request.reject(error());
  }

  #startAll(): void {
    while (this.#requests.length > 0 && this.#mayStart()) this.#requests.shift()?.start();
  }
}
