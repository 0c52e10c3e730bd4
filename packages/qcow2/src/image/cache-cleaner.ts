import type { Env } from "@blocklayer/env";
import type { TableCache } from "./table-cache.ts";

/**
 * Forgets tables that nobody used for a while. Its timer runs only while there is something to forget.
 *
 * @see spec/qcow2.md section 7
 */
export class CacheCleaner {
  readonly #env: Env;
  readonly #caches: readonly TableCache[];
  #intervalMs: number;
  #timer: AbortController | undefined;
  #isPaused: boolean = false;

  /** @param intervalSeconds - a table unused for one to two intervals is forgotten; 0 for never */
  constructor(env: Env, caches: readonly TableCache[], intervalSeconds: number) {
    this.#env = env;
    this.#caches = caches;
    this.#intervalMs = intervalSeconds * 1000;
    for (const cache of caches) cache.onAdded = () => this.#start();
  }

  /** Whether a timer runs. */
  get isRunning(): boolean {
    return this.#timer !== undefined;
  }

  /** Seconds; begins anew with it. */
  set interval(seconds: number) {
    this.#intervalMs = seconds * 1000;
    this.#stop();
    this.#start();
  }

  pause(): void {
    this.#isPaused = true;
    this.#stop();
  }

  resume(): void {
    this.#isPaused = false;
    this.#start();
  }

  #start(): void {
    const isIdle = this.#timer === undefined && !this.#isPaused && this.#intervalMs > 0;
    if (!(isIdle && this.#caches.some(({ hasClean }) => hasClean))) return;
    const timer = new AbortController();
    this.#timer = timer;
    const stopped = (): void => undefined;
    this.#env.clock.sleep(this.#intervalMs, timer.signal).then(() => this.#clean(timer), stopped);
  }

  #stop(): void {
    this.#timer?.abort();
    this.#timer = undefined;
  }

  #clean(timer: AbortController): void {
    if (this.#timer !== timer) return;
    this.#timer = undefined;
    for (const cache of this.#caches) cache.dropUnused();
    this.#start();
  }
}
