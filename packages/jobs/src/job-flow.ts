import type { Env } from "@blocklayer/env";
import { assert } from "@blocklayer/errors";

/** What the flow of a job asks its owner. */
export interface FlowOwner {
  isCancelled(): boolean;
  /** Quiesces the driver before a rest. */
  quiesce(): void | Promise<void>;
  /** Undoes `quiesce`. */
  restart(): void;
  /** Shows in the status that the job rests or goes on. */
  showPaused(paused: boolean): void;
  reportDefect(error: unknown): void;
}

const settled: Promise<void> = Promise.resolve();

/**
 * The resting and waking of a job's one asynchronous function.
 *
 * `busy` is true from the moment of a wake-up, not from when the function runs again, so a second kick in
 * between is no second wake-up, and whoever drains waits for it. Between a check and the rest that follows
 * it nothing is awaited, so no kick is lost that way; a kick of a busy job is lost on purpose.
 *
 * Differs: a kick does not wake a job that has to stay paused, or a stray one would let it work inside a
 * drained section. It is woken when the last pause ends.
 *
 * @see spec/jobs.md section 6
 */
export class JobFlow {
  readonly #env: Env;
  readonly #owner: FlowOwner;
  #busy: boolean = false;
  #started: boolean = false;
  #ended: boolean = false;
  #paused: boolean = true;
  #pauseCount = 1;
  #hurries = 0;
  #unpark: (() => void) | undefined;
  #timer: AbortController | undefined;
  #idleWaiters: (() => void)[] = [];

  constructor(env: Env, owner: FlowOwner) {
    this.#env = env;
    this.#owner = owner;
  }

  get busy(): boolean {
    return this.#busy;
  }

  get started(): boolean {
    return this.#started;
  }

  /** The work is over; the completion may still have to run. */
  get ended(): boolean {
    return this.#ended;
  }

  get paused(): boolean {
    return this.#paused;
  }

  get pauseCount(): number {
    return this.#pauseCount;
  }

  begin(): void {
    this.#started = true;
    this.#pauseCount -= 1;
    this.#paused = false;
    this.#busy = true;
  }

  /** The work is over. It stays busy until `settle`, or a drain would not wait for the completion. */
  end(): void {
    this.#ended = true;
  }

  /** The completion begins: not busy, or whoever drains inside it would wait for itself. */
  settle(): void {
    this.#ended = true;
    this.#busy = false;
    this.notifyIdle();
  }

  pause(): void {
    this.#pauseCount += 1;
    if (!this.#paused) this.kick();
  }

  resume(): void {
    assert(this.#pauseCount > 0, "a job was resumed more often than paused");
    this.#pauseCount -= 1;
    // No sleep can be cut short here: the pause has ended it.
    if (this.#pauseCount === 0) this.kick();
  }

  /** Drops one pause without waking anybody. */
  forgetPause(): void {
    assert(this.#pauseCount > 0, "a job was resumed more often than paused");
    this.#pauseCount -= 1;
  }

  kick(): void {
    if (!this.#started || this.#ended || this.#busy) return;
    if (this.#paused && this.#shouldPause()) return;
    this.#timer?.abort();
    this.#timer = undefined;
    this.#busy = true;
    const unpark = this.#unpark;
    this.#unpark = undefined;
    assert(unpark !== undefined, "a job that is not busy does not rest");
    this.#env.wake(unpark, "job kick");
  }

  /** Ends a sleep that is under way. */
  kickSleeper(): void {
    if (this.#timer !== undefined) this.kick();
  }

  /** Makes every sleep as short as possible until `unhurry`. */
  hurry(): void {
    this.#hurries += 1;
    this.kickSleeper();
  }

  unhurry(): void {
    this.#hurries -= 1;
  }

  pausePoint(): Promise<void> {
    return this.#shouldPause() ? this.#rest() : settled;
  }

  yield(): Promise<void> {
    if (this.#owner.isCancelled()) return settled;
    return this.#shouldPause() ? this.#rest() : this.#parkThenPausePoint();
  }

  sleep(delayMs: number): Promise<void> {
    if (Number.isNaN(delayMs)) throw new RangeError("delay of NaN ms is not a number");
    if (this.#owner.isCancelled()) return settled;
    if (this.#shouldPause()) return this.#rest();
    this.#arm(this.#hurries > 0 ? 0 : Math.max(0, delayMs));
    return this.#parkThenPausePoint();
  }

  notifyIdle(): void {
    const waiters = this.#idleWaiters;
    this.#idleWaiters = [];
    for (const waiter of waiters) this.#env.wake(waiter, "job idle");
  }

  /** Resolves at the next moment at which `busy` may have become false. */
  nextIdle(): Promise<void> {
    return new Promise((resolve) => this.#idleWaiters.push(resolve));
  }

  #shouldPause(): boolean {
    return this.#pauseCount > 0 && !this.#owner.isCancelled();
  }

  async #parkThenPausePoint(): Promise<void> {
    await this.#park();
    await this.pausePoint();
  }

  async #rest(): Promise<void> {
    const quiesced = this.#owner.quiesce();
    if (quiesced !== undefined) await quiesced;
    if (this.#shouldPause()) {
      this.#paused = true;
      this.#owner.showPaused(true);
      // Whoever was told of the status may have resumed the job already.
      if (this.#shouldPause()) await this.#park();
      this.#paused = false;
      this.#owner.showPaused(false);
    }
    this.#owner.restart();
  }

  #park(): Promise<void> {
    assert(this.#unpark === undefined, "a job rests twice at a time");
    const parked = new Promise<void>((resolve) => {
      this.#unpark = resolve;
    });
    this.#busy = false;
    this.notifyIdle();
    return parked;
  }

  #arm(delayMs: number): void {
    const timer = new AbortController();
    this.#timer = timer;
    this.#env.clock.sleep(delayMs, timer.signal).then(
      () => {
        // A kick may have been faster in the very turn in which the timer went off.
        if (this.#timer === timer) this.kick();
      },
      (error: unknown) => {
        if (!timer.signal.aborted) this.#owner.reportDefect(error);
      },
    );
  }
}
