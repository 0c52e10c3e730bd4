import { BlockError } from "@blocklayer/errors";
import type { OperatingSystem } from "./operating-system.ts";

/**
 * An open file descriptor that is closed when it was retired and nobody uses it any more.
 *
 * A number that is closed under a running call may be given to another file at once; so whoever goes to the
 * thread pool with the number holds the descriptor meanwhile.
 */
export class Descriptor {
  readonly isWritable: boolean;
  readonly #system: OperatingSystem;
  #users = 0;
  #fd: number;
  #retiring: { readonly promise: Promise<void>; readonly closeNow: () => void } | undefined;

  constructor(system: OperatingSystem, fd: number, isWritable: boolean) {
    this.#system = system;
    this.#fd = fd;
    this.isWritable = isWritable;
  }

  /** The number, for calls that are over when they return; −1 when it is closed. */
  get fd(): number {
    return this.#fd;
  }

  /**
   * Runs `use` while the descriptor cannot be closed. To be called at once by whoever was given the descriptor, before
   * any waiting.
   *
   * @throws BlockError `ESHUTDOWN` it is closed
   */
  async hold<T>(use: (fd: number) => Promise<T>): Promise<T> {
    if (this.#fd < 0) throw new BlockError("ESHUTDOWN", "the file is closed");
    this.#users += 1;
    try {
      return await use(this.#fd);
    } finally {
      this.#users -= 1;
      if (this.#users === 0) this.#retiring?.closeNow();
    }
  }

  /** Closes the descriptor when its last user is done. Calling it again returns the same promise. */
  retire(): Promise<void> {
    if (this.#retiring === undefined) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const closeNow = (): void => {
        const fd = this.#fd;
        this.#fd = -1;
        this.#system.close(fd).then(resolve, reject);
      };
      this.#retiring = { promise, closeNow };
      if (this.#users === 0) closeNow();
    }
    return this.#retiring.promise;
  }
}
