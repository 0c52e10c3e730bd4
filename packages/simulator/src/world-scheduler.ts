import type { Clock, Env, Random } from "@blocklayer/env";
import { SeededRandom } from "@blocklayer/env";
import type { Decisions } from "./decisions.ts";
import { type Drain, defaultDrain } from "./drain.ts";
import { Exploration } from "./exploration.ts";
import { SimulationFailure } from "./simulation-failure.ts";

/** Completions of one run after which it counts as one that never ends. */
const EVENTS_MAX = 200_000;

export interface WorldSchedulerOptions {
  readonly decisions: Decisions;
  /** Default: the fastest one there is. */
  readonly drain?: Drain;
  /** Completions after which the run fails as one that never ends. Default 200,000. */
  readonly eventsMax?: number;
}

interface Completion {
  readonly tag: string;
  /** Not delivered before this simulated time, in milliseconds. */
  readonly atMs: number;
  readonly rank: number;
  deliver(): void;
}

/**
 * Owns what an event loop leaves open: which of the pending completions is delivered next.
 *
 * A step delivers one completion and lets every promise job run. All choices are {@link Decisions}: the order of
 * completions, whether wake-ups of locks are completions of their own, chance, and the delivery of offloaded work. Time
 * stands still until nothing is ready, or a timer is chosen to go off early.
 *
 * @see docs/reliability.md section 3.3.2
 */
export class WorldScheduler {
  readonly decisions: Decisions;
  readonly env: Env;
  /** Tell what waits where, for the report of a deadlock. */
  readonly reporters: (() => readonly string[])[] = [];
  readonly #drain: Drain;
  #eventsMax: number;
  readonly #exploration: Exploration | undefined;
  /** Wake-ups are completions; otherwise they happen at once, as in production. */
  readonly #isAdversarial: boolean;
  /** In the order in which they were posted. */
  readonly #ready: Completion[] = [];
  /** By time, then by the order in which they were posted. */
  readonly #timers: Completion[] = [];
  /** Who waits for everything else to come to rest, the first one first. */
  readonly #resting: (() => void)[] = [];
  #nowMs = 0;
  #events = 0;
  #failure: SimulationFailure | undefined;

  constructor(options: WorldSchedulerOptions) {
    this.decisions = options.decisions;
    this.#drain = options.drain ?? defaultDrain();
    this.#eventsMax = options.eventsMax ?? EVENTS_MAX;
    const { seeded } = this.decisions;
    this.#exploration = seeded === undefined ? undefined : new Exploration(seeded);
    this.#isAdversarial = this.decisions.chance("wake-ups are decisions", 3, 4);
    this.env = {
      clock: this.#clock(),
      random: this.#random(),
      wake: (resume, tag) => (this.#isAdversarial ? this.post(`wake ${tag}`, resume) : resume()),
      offload: async (work) => {
        const result = await work();
        await this.turn("offload");
        return result;
      },
      buggify: (site) => this.decisions.chance(`buggify ${site}`, 1, 8),
    };
  }

  /** Completions that were delivered so far. */
  get events(): number {
    return this.#events;
  }

  /** Completions that wait, timers included. */
  get pending(): number {
    return this.#ready.length + this.#timers.length;
  }

  /** Tags of what is pending. */
  get pendingTags(): string[] {
    return [...this.#ready, ...this.#timers].map(({ tag }) => tag);
  }

  /** Adds a completion, to be delivered once, not before `delayMs` milliseconds are over. */
  post(tag: string, deliver: () => void, delayMs = 0): void {
    const rank = this.#exploration?.rank(tag) ?? 0;
    const completion: Completion = { tag, atMs: this.#nowMs + delayMs, rank, deliver };
    if (delayMs <= 0) {
      this.#ready.push(completion);
      return;
    }
    const index = this.#timers.findIndex(({ atMs }) => atMs > completion.atMs);
    this.#timers.splice(index < 0 ? this.#timers.length : index, 0, completion);
  }

  /** Resolves when the scheduler delivers it: a macrotask. */
  turn(tag: string, delayMs = 0): Promise<void> {
    return new Promise((resolve) => this.post(tag, resolve, delayMs));
  }

  /** Resolves when nothing else is pending: no decision, so that it adds nothing to what a complete exploration has to try. */
  rest(): Promise<void> {
    return new Promise((resolve) => this.#resting.push(resolve));
  }

  /** Ends the run with a failure, from wherever it was found; the first one counts. */
  fail(failure: SimulationFailure): void {
    this.#failure ??= failure;
  }

  /**
   * Chooses fairly from here on, and allows this many more completions: a run that needs more counts as one that never
   * ends.
   */
  calm(count: number): void {
    this.#exploration?.becomeFair();
    this.#eventsMax = Math.min(this.#eventsMax, this.#events + count);
  }

  /** Forgets everything that is pending: the process that waited for it is dead. */
  crash(): void {
    this.#ready.length = 0;
    this.#timers.length = 0;
    this.#resting.length = 0;
  }

  /**
   * Runs until `main` has settled, and settles as it does.
   *
   * @throws SimulationFailure what {@link fail} was told; kind `deadlock` nothing is pending and `main` waits; kind
   *   `livelock` it goes on and on
   */
  async run<T>(main: () => Promise<T>): Promise<T> {
    let result: Promise<T> | undefined;
    let isSettled = false;
    const settle = (): void => {
      isSettled = true;
    };
    await this.#drain.loop(() => {
      if (this.#failure !== undefined) throw this.#failure;
      if (isSettled) return false;
      if (result === undefined) {
        result = main();
        result.then(settle, settle);
      } else {
        this.#step();
      }
      return true;
    });
    return (await result) as T;
  }

  /** Delivers what is pending until nothing is. @throws SimulationFailure as {@link run} */
  settle(): Promise<void> {
    return this.#drain.loop(() => {
      if (this.#failure !== undefined) throw this.#failure;
      if (this.pending === 0) return false;
      this.#step();
      return true;
    });
  }

  #step(): void {
    const rested = this.pending === 0 ? this.#resting.shift() : undefined;
    if (rested !== undefined) {
      rested();
      return;
    }
    if (this.pending === 0) throw this.#stuck("deadlock", "nothing is pending");
    if (this.#events >= this.#eventsMax) throw this.#stuck("livelock", "it goes on and on");
    const chosen = this.#choose();
    this.#events += 1;
    this.decisions.trace.delivered(chosen.tag, this.#nowMs);
    chosen.deliver();
  }

  #choose(): Completion {
    const ready = this.#ready;
    if (ready.length > 0) {
      const bound = ready.length + (this.#timers.length > 0 ? 1 : 0);
      const index = this.decisions.choose("next", bound, () => this.#pick());
      const chosen = ready[index];
      if (chosen !== undefined) {
        ready.splice(index, 1);
        return chosen;
      }
    }
    const timer = this.#timers.shift() as Completion;
    this.#nowMs = timer.atMs;
    return timer;
  }

  #pick(): number {
    const exploration = this.#exploration;
    if (exploration === undefined) return 0;
    if (this.#timers.length > 0 && exploration.jumps()) return this.#ready.length;
    return exploration.pick(this.#ready);
  }

  #stuck(kind: "deadlock" | "livelock", what: string): SimulationFailure {
    const lines = [
      `${what} at ${this.#nowMs} ms after ${this.#events} events`,
      ...this.reporters.flatMap((report) => report()),
      ...this.pendingTags.slice(0, 20).map((tag) => `pending: ${tag}`),
      `last events: ${this.decisions.trace.tail.join(" | ")}`,
    ];
    return new SimulationFailure(kind, lines.join("\n  "));
  }

  #random(): Random {
    const u32 = (): number => this.decisions.choose("random", 2 ** 32);
    return {
      u32,
      below: (bound) => this.decisions.choose("random", bound),
      bytes: (length) => new SeededRandom(u32()).bytes(length),
    };
  }

  #clock(): Clock {
    return {
      now: () => this.#nowMs,
      sleep: (delayMs, signal) =>
        new Promise((resolve, reject) => {
          if (signal?.aborted === true) {
            reject(signal.reason);
            return;
          }
          const abort = (): void => {
            this.#forget(deliver);
            reject(signal?.reason);
          };
          const deliver = (): void => {
            signal?.removeEventListener("abort", abort);
            resolve();
          };
          signal?.addEventListener("abort", abort, { once: true });
          this.post(delayMs > 0 ? `sleep ${delayMs}` : "sleep", deliver, delayMs);
        }),
    };
  }

  #forget(deliver: () => void): void {
    for (const list of [this.#ready, this.#timers]) {
      const index = list.findIndex((completion) => completion.deliver === deliver);
      if (index >= 0) list.splice(index, 1);
    }
  }
}
