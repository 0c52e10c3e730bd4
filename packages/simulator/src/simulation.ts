import type { Env } from "@blocklayer/env";
import { Cancellation } from "./cancellation.ts";
import type { Decisions } from "./decisions.ts";
import { Medium, type MediumOptions } from "./disk/medium.ts";
import { SimulationFailure } from "./simulation-failure.ts";
import type { Trace } from "./trace.ts";
import type { WorldScheduler } from "./world-scheduler.ts";

/** A small world: disks, a graph, clients and faults, all drawn from decisions, and oracles that judge it. */
export interface World {
  readonly name: string;
  /** Rare situations, as {@link Simulation.sometimes} is told of them: each has to happen in some lives. */
  readonly situations: readonly string[];
  /** Lives one life. @throws SimulationFailure what an oracle found */
  run(simulation: Simulation): Promise<void>;
}

/** Completions within which everything has to end once nothing fails any more. */
const CALM_EVENTS_MAX = 20_000;

/** What a world says about a medium; the rest follows from the simulation. */
export type SimulatedMediumOptions = Omit<MediumOptions, "decisions" | "post" | "report">;

/** What a world gets: decisions, the scheduler, and a place for findings. */
export class Simulation {
  readonly scheduler: WorldScheduler;
  /** How often rare situations happened, by name. */
  readonly counts: Map<string, number> = new Map();
  readonly #operations = new Set<string>();
  readonly #media: Medium[] = [];
  readonly #cancellations: Cancellation[] = [];
  #operationCount = 0;

  constructor(scheduler: WorldScheduler) {
    this.scheduler = scheduler;
    scheduler.reporters.push(() => [...this.#operations].map((name) => `unfinished: ${name}`));
  }

  get decisions(): Decisions {
    return this.scheduler.decisions;
  }

  get env(): Env {
    return this.scheduler.env;
  }

  get trace(): Trace {
    return this.decisions.trace;
  }

  /** Reports a finding from anywhere, also from inside the code under test: the run ends at its next step. */
  fail(kind: string, message: string): void {
    this.scheduler.fail(new SimulationFailure(kind, message));
  }

  /** Reports a finding unless `condition` holds. */
  expect(condition: boolean, kind: string, message: () => string): void {
    if (!condition) this.fail(kind, message());
  }

  /** Counts a situation that has to happen now and then, or the world is too tame. */
  sometimes(name: string): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
  }

  /** Returns a new medium whose requests are decisions of this life. What a discard does to it is drawn by default. */
  medium(options: SimulatedMediumOptions): Medium {
    const { decisions, scheduler } = this;
    const medium = new Medium({
      ...options,
      discard:
        options.discard ??
        decisions.among(`${options.name} discard`, ["zeroes", "keep", "scramble"]),
      decisions,
      post: (tag, deliver, delayMs) => scheduler.post(tag, deliver, delayMs),
      report: (kind, message) => this.fail(kind, message),
    });
    this.#media.push(medium);
    return medium;
  }

  /** Returns a signal for a request. Who still listens at the end of the life is a finding. */
  cancellation(): Cancellation {
    const cancellation = new Cancellation();
    this.#cancellations.push(cancellation);
    return cancellation;
  }

  /**
   * Faults stop: all media heal, and from here on everything has to end soon.
   *
   * @see docs/reliability.md section 3.3.6
   */
  calm(): void {
    for (const medium of this.#media) medium.heal();
    this.scheduler.calm(CALM_EVENTS_MAX);
  }

  /** Names an operation as long as it runs, for the report of a deadlock. Settles as `work` does. */
  async operation<T>(name: string, work: () => Promise<T>): Promise<T> {
    this.#operationCount += 1;
    const entry = `${name} (operation ${this.#operationCount})`;
    this.#operations.add(entry);
    this.trace.note(`begins: ${entry}`);
    try {
      return await work();
    } finally {
      this.#operations.delete(entry);
      this.trace.note(`ends: ${entry}`);
    }
  }

  /**
   * Reports a finding if something is left behind at the end of a life: what waits to be delivered that nobody should
   * wait for any more, timers among it, and listeners of signals.
   */
  async expectNothingPending(): Promise<void> {
    const { scheduler } = this;
    // Who was woken has still to run; what it does counts.
    while (scheduler.pendingTags.some((tag) => tag.startsWith("wake "))) {
      await scheduler.turn("last wake-ups");
    }
    const { pendingTags } = scheduler;
    this.expect(pendingTags.length === 0, "left behind", () => pendingTags.join(", "));
    const listeners = this.#cancellations.reduce((sum, one) => sum + one.listeners, 0);
    this.expect(listeners === 0, "still listening", () => `${listeners} to signals`);
  }

  /** The process dies: nothing that waits goes on. */
  crash(): void {
    this.#operations.clear();
    this.#cancellations.length = 0;
    this.scheduler.crash();
  }
}
