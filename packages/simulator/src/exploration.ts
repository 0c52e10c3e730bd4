import { type Random, SeededRandom } from "@blocklayer/env";

/** How a run from a seed chooses the next completion. */
export type ExplorationName = "uniform" | "latency" | "priority";

/** What is chosen from. */
export interface Candidate {
  readonly tag: string;
  /** Set by the way to choose when the completion is posted. */
  readonly rank: number;
}

/**
 * A way to choose the next completion. It is not part of what is recorded: only its choices are.
 *
 * | name | chooses | share |
 * | --- | --- | --- |
 * | `uniform` | any, all alike | 60 % |
 * | `latency` | the one whose random delay ends first | 25 % |
 * | `priority` | by a random priority of each kind of completion, which changes now and then | 15 % |
 *
 * @see docs/reliability.md section 3.3.5
 */
export class Exploration {
  readonly name: ExplorationName;
  readonly #random: Random;
  readonly #priorities = new Map<string, number>();
  #count = 0;
  #isFair: boolean = false;

  constructor(random: Random) {
    this.#random = new SeededRandom(random.u32());
    const share = this.#random.below(100);
    this.name = share < 60 ? "uniform" : share < 85 ? "latency" : "priority";
  }

  /** Returns the rank of a completion that is posted now. */
  rank(tag: string): number {
    this.#count += 1;
    if (this.name === "latency") return this.#count + this.#latency();
    return this.name === "priority" ? this.#priority(tag) : 0;
  }

  /** Nobody is kept waiting for ever from here on: what a proof that everything ends has to assume. */
  becomeFair(): void {
    this.#isFair = true;
  }

  /** Returns the index of the one to deliver. */
  pick(candidates: readonly Candidate[]): number {
    if (this.#isFair || this.name === "uniform") return this.#random.below(candidates.length);
    if (this.name === "priority" && this.#random.below(30) === 0) this.#priorities.clear();
    let best = 0;
    for (let index = 1; index < candidates.length; index += 1) {
      if ((candidates[index]?.rank ?? 0) < (candidates[best]?.rank ?? 0)) best = index;
    }
    return best;
  }

  /** Whether a timer is to go off although completions are ready. */
  jumps(): boolean {
    return this.#random.below(16) === 0;
  }

  /** Mostly short, sometimes many times longer. */
  #latency(): number {
    const isSlow = this.#random.below(8) === 0;
    return this.#random.below(isSlow ? 200 : 12);
  }

  #priority(tag: string): number {
    const known = this.#priorities.get(tag);
    if (known !== undefined) return known;
    const priority = this.#random.u32();
    this.#priorities.set(tag, priority);
    return priority;
  }
}
