type Listener = Parameters<AbortSignal["addEventListener"]>[1];

/** A signal whose listeners are counted: who listens after the end of its request has leaked. */
export class Cancellation {
  readonly reason: Error = new Error("cancelled");
  readonly #controller = new AbortController();
  readonly #listeners = new Set<Listener>();

  constructor() {
    const { signal } = this.#controller;
    const add = signal.addEventListener.bind(signal);
    const remove = signal.removeEventListener.bind(signal);
    signal.addEventListener = (
      type: string,
      listener: Listener,
      options?: Parameters<AbortSignal["addEventListener"]>[2],
    ) => {
      this.#listeners.add(listener);
      add(type, listener, options);
    };
    signal.removeEventListener = (type: string, listener: Listener) => {
      this.#listeners.delete(listener);
      remove(type, listener);
    };
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Those that listen still; none once it was aborted. */
  get listeners(): number {
    return this.signal.aborted ? 0 : this.#listeners.size;
  }

  abort(): void {
    this.#controller.abort(this.reason);
  }
}
