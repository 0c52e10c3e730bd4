import type { Env } from "@blocklayer/env";
import { Mutex } from "./mutex.ts";

/**
 * Keeps requests of guests and operations on the whole image (snapshots, resizing, repair) apart: any number of
 * requests at a time, or one operation.
 */
export class RequestGate {
  readonly #env: Env;
  readonly #operations: Mutex;
  #inFlight = 0;
  #isClosed: boolean = false;
  /** Requests that wait for the end of an operation. */
  #waiting: (() => void)[] = [];
  #whenEmpty: (() => void) | undefined;

  constructor(env: Env) {
    this.#env = env;
    this.#operations = new Mutex(env, "qcow2 operation");
  }

  /** Requests that are inside. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Lets a request in at once, if no operation is in the way; else wait by {@link enter}. */
  tryEnter(): boolean {
    if (this.#isClosed) return false;
    this.#inFlight += 1;
    return true;
  }

  async enter(): Promise<void> {
    while (!this.tryEnter()) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  leave(): void {
    this.#inFlight -= 1;
    if (this.#inFlight > 0) return;
    const resume = this.#whenEmpty;
    this.#whenEmpty = undefined;
    if (resume !== undefined) this.#env.wake(resume, "qcow2 gate empty");
  }

  /** Runs `work` while no request is inside. Settles as it does. */
  alone<T>(work: () => Promise<T>): Promise<T> {
    return this.#operations.run(async () => {
      this.#isClosed = true;
      try {
        if (this.#inFlight > 0) {
          await new Promise<void>((resolve) => {
            this.#whenEmpty = resolve;
          });
        }
        return await work();
      } finally {
        this.#isClosed = false;
        const waiting = this.#waiting;
        this.#waiting = [];
        for (const resume of waiting) this.#env.wake(resume, "qcow2 gate open");
      }
    });
  }
}
