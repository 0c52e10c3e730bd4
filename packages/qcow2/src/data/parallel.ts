/** Parts of one request that run at a time. */
export const PARTS_MAX = 8;

/**
 * Parts of a request side by side. After a failure no part should begin any more; {@link end} settles when all
 * that began have.
 */
export class PartQueue {
  readonly #running = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | undefined;

  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  /** Watches a part that has begun. Resolves when there is room for another one. */
  async track(part: Promise<void>): Promise<void> {
    const running = part.then(
      () => void this.#running.delete(running),
      (error: unknown) => {
        this.#failure ??= { error };
        this.#running.delete(running);
      },
    );
    this.#running.add(running);
    while (this.#running.size >= PARTS_MAX) await Promise.race(this.#running);
  }

  /** Waits for what the next part needs. If that fails, so does the request, once all that began have ended. */
  async need(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      this.#failure ??= { error };
    }
  }

  /** Resolves when all have ended. @throws the first failure */
  async end(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
