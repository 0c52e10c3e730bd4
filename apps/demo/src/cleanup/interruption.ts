/** Why the demo was asked to end before its time. */
export class Interrupted extends Error {
  /** What a shell reports for a program that a signal has ended. */
  readonly exitCode: number;

  constructor(what: string, exitCode: number) {
    super(`ended by ${what}`);
    this.exitCode = exitCode;
  }
}

const EXIT_CODES = { SIGHUP: 129, SIGINT: 130, SIGQUIT: 131, SIGTERM: 143 } as const;

/** A terminal and the programs between it and us may each pass on the same Ctrl-C. */
const SAME_SIGNAL_MS = 300;

/** The orderly way out may take this long. */
const PATIENCE_MS = 8000;

/**
 * Turns signals into an `AbortSignal`. The first asks for the orderly way out; the second, or a way out that takes too
 * long, ends the process at once.
 */
export class Interruption implements Disposable {
  readonly #controller = new AbortController();
  readonly #listeners = new Map<NodeJS.Signals, () => void>();
  #firstAtMs: number = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor() {
    for (const [name, exitCode] of Object.entries(EXIT_CODES)) {
      const listener = (): void => this.#received(name, exitCode);
      this.#listeners.set(name as NodeJS.Signals, listener);
      process.on(name, listener);
    }
  }

  /** Aborted with an {@link Interrupted}. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Asks for the orderly way out as a signal does. */
  interrupt(what: string, exitCode: number): void {
    if (this.signal.aborted) return;
    this.#firstAtMs = performance.now();
    // The process ends by itself long before, and this timer does not keep it.
    this.#timer = setTimeout(() => process.exit(exitCode), PATIENCE_MS).unref();
    this.#controller.abort(new Interrupted(what, exitCode));
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    // Who was asked to end is about to: a signal until then ends him with the same code.
    if (this.signal.aborted) return;
    for (const [name, listener] of this.#listeners) process.off(name, listener);
  }

  #received(name: string, exitCode: number): void {
    if (!this.signal.aborted) this.interrupt(name, exitCode);
    else if (performance.now() - this.#firstAtMs > SAME_SIGNAL_MS) process.exit(exitCode);
  }
}
