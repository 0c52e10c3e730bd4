import { BlockError, textOfErrno } from "@blocklayer/errors";
import { ioError } from "./io-error.ts";

/**
 * Makes writes stable, one call at a time.
 *
 * A flush that comes while another runs waits for a call that begins after it came, and shares it with all
 * that came meanwhile: each covers every write that completed before it was asked for.
 *
 * After a failure the page cache has forgotten which pages were not written, and a further call would report
 * success. So the failure stays: every later flush fails with the same code until the file is opened anew.
 * Writes are still taken; nobody is told that they are stable.
 *
 * @see spec/filters-and-raw.md section 6.3
 */
export class FlushLine {
  readonly #sync: () => Promise<void>;
  readonly #nodeName: string;
  readonly #isSticky: boolean;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #failure: BlockError | undefined;

  /**
   * @param sync - makes everything stable that was written before the call
   * @param isSticky - whether a failure stays; not so when the page cache is bypassed
   */
  constructor(sync: () => Promise<void>, nodeName: string, isSticky: boolean) {
    this.#sync = sync;
    this.#nodeName = nodeName;
    this.#isSticky = isSticky;
  }

  /** The failure that every flush reports from now on. */
  get failure(): BlockError | undefined {
    return this.#failure;
  }

  flush(): Promise<void> {
    if (this.#next !== undefined) return this.#next;
    if (this.#running === undefined) return this.#start();
    const startNext = (): Promise<void> => this.#start();
    this.#next = this.#running.then(startNext, startNext);
    return this.#next;
  }

  #start(): Promise<void> {
    this.#next = undefined;
    if (this.#failure !== undefined) return Promise.reject(this.#failedBefore(this.#failure));
    const running = this.#run();
    this.#running = running;
    return running;
  }

  async #run(): Promise<void> {
    try {
      await this.#sync();
    } catch (error) {
      const failure = ioError(error, "flush failed", this.#context());
      if (this.#isSticky) this.#failure = failure;
      throw failure;
    } finally {
      this.#running = undefined;
    }
  }

  #failedBefore(failure: BlockError): BlockError {
    const { code } = failure;
    return new BlockError(code, `an earlier flush failed: ${textOfErrno(code)}`, this.#context(), {
      cause: failure,
      hint: "what was written since the last flush that succeeded may be lost; open the file anew and write it again",
    });
  }

  #context(): { readonly node: string; readonly operation: string } {
    return { node: this.#nodeName, operation: "flush" };
  }
}
