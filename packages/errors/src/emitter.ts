/** A function that is told of one kind of event. */
export type Listener<Value> = (value: Value) => void;

/**
 * Tells listeners of control-plane events, in the order in which they were added.
 *
 * `Events` maps an event's name to the value it carries. Listeners run synchronously inside `emit`; a
 * listener that is added during an `emit` is not told of that event, one that is removed during it is not
 * told any more. A listener that throws does not keep the others from being told: the first error is
 * thrown by `emit` after all were called. Never used per request.
 */
export class Emitter<Events extends object> {
  readonly #listeners = new Map<keyof Events, Set<Listener<never>>>();

  /**
   * Adds a listener.
   *
   * @returns a disposable that removes it again; disposing twice is harmless
   */
  on<Name extends keyof Events>(name: Name, listener: Listener<Events[Name]>): Disposable {
    const set = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, set);
    // A wrapper gives each call its own entry, so the same function may listen twice.
    const entry: Listener<Events[Name]> = (value) => listener(value);
    set.add(entry);
    return { [Symbol.dispose]: () => void set.delete(entry) };
  }

  /** Adds a listener for the next event only. */
  once<Name extends keyof Events>(name: Name, listener: Listener<Events[Name]>): Disposable {
    const subscription = this.on(name, (value) => {
      subscription[Symbol.dispose]();
      listener(value);
    });
    return subscription;
  }

  /** Tells every listener of `name`. */
  emit<Name extends keyof Events>(name: Name, value: Events[Name]): void {
    const set = this.#listeners.get(name);
    if (set === undefined || set.size === 0) return;
    const errors: unknown[] = [];
    for (const listener of [...set]) {
      if (!set.has(listener)) continue;
      try {
        (listener as Listener<Events[Name]>)(value);
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
  }

  /** Number of listeners of one event, or of all. */
  listenerCount(name?: keyof Events): number {
    if (name !== undefined) return this.#listeners.get(name)?.size ?? 0;
    let count = 0;
    for (const set of this.#listeners.values()) count += set.size;
    return count;
  }
}
