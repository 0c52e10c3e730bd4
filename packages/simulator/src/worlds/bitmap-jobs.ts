import type { Simulation } from "../simulation.ts";
import type { BitmapLedger, Held } from "./bitmap-ledger.ts";

const WAIT_MS = 10;

/**
 * Jobs and exports that use the user's bitmaps: they freeze one or claim it, take their time, and give it back, well
 * or badly.
 */
export class BitmapJobs {
  readonly #simulation: Simulation;
  readonly #ledger: BitmapLedger;

  constructor(simulation: Simulation, ledger: BitmapLedger) {
    this.#simulation = simulation;
    this.#ledger = ledger;
  }

  async work(count: number): Promise<void> {
    for (let index = 0; index < count; index += 1) await this.#use();
  }

  async #use(): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    await scheduler.turn("before a job");
    const free = this.#ledger.all.filter(isFree);
    const held = free[decisions.choose("bitmap of the job", Math.max(1, free.length))];
    if (held === undefined) return;
    if (decisions.chance("only claims", 1, 4)) {
      await this.#claim(held);
    } else {
      await this.#freeze(held);
    }
    this.#ledger.judge();
  }

  async #claim(held: Held): Promise<void> {
    held.bitmap.setBusy(true);
    held.isBusy = true;
    await this.#takeTime(held);
    held.bitmap.setBusy(false);
    held.isBusy = false;
  }

  async #freeze(held: Held): Promise<void> {
    const { decisions } = this.#simulation;
    const { bitmap } = held;
    held.isTouched = true;
    bitmap.createSuccessor();
    held.freeze();
    this.#ledger.judge();
    await this.#takeTime(held);
    if (decisions.chance("job succeeds", 1, 2)) {
      held.abdicate(bitmap.abdicate());
      this.#simulation.sometimes("a successor took over");
    } else {
      bitmap.reclaim();
      held.reclaim();
      this.#simulation.sometimes("a bitmap was reclaimed");
    }
  }

  /** Some turns, and those in which a command is about the bitmap. */
  async #takeTime(held: Held): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    for (let turns = decisions.choose("turns of a job", 20); turns >= 0; turns -= 1) {
      await scheduler.turn("job");
    }
    while (held.isInTransition) await scheduler.turn("job waits", WAIT_MS);
  }
}

function isFree(held: Held): boolean {
  return !(held.isBusy || held.isReadonly || held.isInconsistent || held.isInTransition);
}
