import { trimmed } from "./decisions.ts";
import { type Outcome, runSeed } from "./run-seed.ts";
import type { World } from "./simulation.ts";

export interface ShrinkOptions {
  /** Runs that may be spent. Default 1000. */
  readonly runsMax?: number;
}

/** The dullest run found that fails in the same way. */
export interface Shrunk {
  readonly decisions: readonly number[];
  readonly outcome: Outcome;
  /** Runs that were spent. */
  readonly runs: number;
}

/**
 * Makes the decisions of a failure fewer and smaller: cuts the end, deletes and zeroes pieces, lowers numbers, as
 * long as the failure is of the same kind.
 *
 * @param failed - a run with a failure
 * @see docs/reliability.md section 3.3.7
 */
export async function shrink(
  world: World,
  failed: Outcome,
  options: ShrinkOptions = {},
): Promise<Shrunk> {
  const search = new Search(world, failed, options.runsMax ?? 1000);
  let before: readonly number[];
  do {
    before = search.best;
    await search.cutEnd();
    for (let length = largestPiece(search.best); length >= 1; length = Math.floor(length / 2)) {
      await search.changePieces(length, (list, at) => list.toSpliced(at, length));
      await search.changePieces(length, (list, at) => list.with(at, 0).fill(0, at, at + length));
    }
    await search.changePieces(1, (list, at) => list.with(at, Math.floor((list[at] ?? 0) / 2)));
    await search.changePieces(1, (list, at) => list.with(at, Math.max(0, (list[at] ?? 0) - 1)));
  } while (search.best !== before && !search.isSpent);
  return { decisions: search.best, outcome: search.outcome, runs: search.runs };
}

function largestPiece(list: readonly number[]): number {
  return Math.max(1, Math.floor(list.length / 2));
}

/** The best list so far, and what was spent to find it. */
class Search {
  best: readonly number[];
  outcome: Outcome;
  runs = 0;
  readonly #world: World;
  readonly #kind: string | undefined;
  readonly #runsMax: number;

  constructor(world: World, failed: Outcome, runsMax: number) {
    this.#world = world;
    this.#kind = failed.failure?.kind;
    this.#runsMax = runsMax;
    this.best = trimmed(failed.decisions);
    this.outcome = failed;
  }

  get isSpent(): boolean {
    return this.runs >= this.#runsMax;
  }

  /** Looks for a short beginning that suffices. */
  async cutEnd(): Promise<void> {
    for (let length = 0; length < this.best.length; length = Math.max(1, length * 2)) {
      if (await this.#try(this.best.slice(0, length))) return;
    }
  }

  /** Tries `change` at every multiple of `step`, from the end. */
  async changePieces(
    step: number,
    change: (list: readonly number[], at: number) => readonly number[],
  ): Promise<void> {
    const last = Math.floor(Math.max(0, this.best.length - 1) / step) * step;
    for (let at = last; at >= 0; at -= step) {
      if (at < this.best.length) await this.#try(change(this.best, at));
    }
  }

  /** Runs a list and keeps what it decided if that is duller and fails alike. */
  async #try(list: readonly number[]): Promise<boolean> {
    if (this.isSpent || !isDuller(trimmed(list), this.best)) return false;
    this.runs += 1;
    const outcome = await runSeed(this.#world, list);
    const decisions = trimmed(outcome.decisions);
    if (outcome.failure?.kind !== this.#kind || !isDuller(decisions, this.best)) return false;
    this.best = decisions;
    this.outcome = outcome;
    return true;
  }
}

/** Shorter, or as long and smaller. */
function isDuller(list: readonly number[], other: readonly number[]): boolean {
  if (list.length !== other.length) return list.length < other.length;
  const sum = (values: readonly number[]): number => values.reduce((one, two) => one + two, 0);
  return sum(list) < sum(other);
}
