import {
  completed,
  type ResizeRequest,
  type WriteKind,
  type WriteObserver,
  type WriteRequest,
} from "@blocklayer/driver";

/** A {@link WriteRequest} that is filled again for every call of an observer. */
interface ReusedRequest extends WriteRequest {
  kind: WriteKind;
  offset: number;
  length: number;
  flags: number;
}

/** A change of content on its way through the request path. */
export interface Change {
  readonly kind: WriteKind;
  readonly offset: number;
  readonly length: number;
  readonly flags: number;
}

/**
 * Tells the observers of one node of changes. One request object is reused for all calls, so that nothing is
 * allocated when every observer answers at once.
 *
 * When one of them refuses, the change is not issued and nobody is told of its end.
 */
export class WriteAnnouncer {
  readonly #request: ReusedRequest = { kind: "write", offset: 0, length: 0, flags: 0 };

  /**
   * Asks the observers one after the other.
   *
   * @returns `undefined` when all agreed at once, else a promise that resolves when all have
   * @throws whatever an observer throws to refuse
   */
  before(
    observers: readonly WriteObserver[],
    kind: WriteKind,
    offset: number,
    length: number,
    flags: number,
  ): Promise<void> | undefined {
    for (let index = 0; index < observers.length; index += 1) {
      const observer = observers[index];
      if (observer?.beforeWrite === undefined) continue;
      const held = observer.beforeWrite(this.#fill(kind, offset, length, flags));
      if (held !== undefined && held !== completed) {
        return this.#beforeRest(held, observers, index + 1, { kind, offset, length, flags });
      }
    }
    return undefined;
  }

  /** Tells the observers that the driver is done with a change. */
  after(
    observers: readonly WriteObserver[],
    kind: WriteKind,
    offset: number,
    length: number,
    flags: number,
    error: unknown,
  ): void {
    for (const observer of observers) {
      observer.afterWrite?.(this.#fill(kind, offset, length, flags), error);
    }
  }

  /** Asks the observers whether the length may change. */
  async beforeResize(
    observers: readonly WriteObserver[],
    oldSize: number,
    newSize: number,
  ): Promise<void> {
    const request: ResizeRequest = { oldSize, newSize };
    for (const observer of observers) await observer.beforeResize?.(request);
  }

  async #beforeRest(
    held: Promise<void>,
    observers: readonly WriteObserver[],
    from: number,
    { kind, offset, length, flags }: Change,
  ): Promise<void> {
    await held;
    for (const observer of observers.slice(from)) {
      await observer.beforeWrite?.(this.#fill(kind, offset, length, flags));
    }
  }

  #fill(kind: WriteKind, offset: number, length: number, flags: number): WriteRequest {
    const request = this.#request;
    request.kind = kind;
    request.offset = offset;
    request.length = length;
    request.flags = flags;
    return request;
  }
}
