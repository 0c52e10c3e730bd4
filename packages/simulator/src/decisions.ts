import { type Random, SeededRandom } from "@blocklayer/env";
import { assert } from "@blocklayer/errors";
import { Trace } from "./trace.ts";

/** Where decisions come from: a seed, or the list that an earlier run recorded, changed or not. */
export type DecisionSource = number | readonly number[];

/**
 * All that could have been otherwise in a run, as a list of small integers; 0 is always the dullest choice.
 *
 * A run from a seed records its list; a run from a list takes what it says, and 0 when it ends. So a replay is the
 * list, and to shrink is to edit it: numbers that are too large for their question are reduced, and every list is a
 * valid run.
 *
 * @see docs/reliability.md section 3.3.2
 */
export class Decisions {
  readonly trace: Trace;
  /** What was decided so far. */
  readonly recorded: number[] = [];
  /** For each decision the next larger number that means something else, -1 when there is none. */
  readonly nextValues: number[] = [];
  /** Chance that is not recorded, for ways to choose; `undefined` in a replay. */
  readonly seeded: Random | undefined;
  readonly #list: readonly number[];

  /** @throws RangeError the list has something else than whole numbers of 0 or more */
  constructor(source: DecisionSource, trace: Trace = new Trace()) {
    if (typeof source !== "number") requireWhole(source);
    this.trace = trace;
    this.seeded = typeof source === "number" ? new SeededRandom(source) : undefined;
    this.#list = typeof source === "number" ? [] : source;
  }

  /**
   * Returns a number from 0 to `bound − 1`.
   *
   * @param tag - names the question in a trace
   * @param bound - 1 to 2^32; of 1 there is nothing to decide, and nothing is recorded
   * @param pick - how a run from a seed answers. Default: all alike
   * @param nameOf - says in a trace what a number means
   */
  choose(
    tag: string,
    bound: number,
    pick?: (random: Random) => number,
    nameOf?: (value: number) => string | undefined,
  ): number {
    assert(bound >= 1 && bound <= 2 ** 32, () => `${tag}: ${bound} is no number of choices`);
    if (bound === 1) return 0;
    const value = this.#answer(bound, pick);
    this.recorded.push(value);
    this.nextValues.push(value + 1 < bound ? value + 1 : -1);
    this.trace.decided(tag, value, nameOf);
    return value;
  }

  /** Whether something happens that has the chance `numerator / denominator`. */
  chance(tag: string, numerator: number, denominator: number): boolean {
    return this.choose(tag, 2, (random) => (random.below(denominator) < numerator ? 1 : 0)) === 1;
  }

  /**
   * Returns an index of `weights`, the first one when all are 0. What has the weight 0 is never returned otherwise.
   *
   * @param names - say in a trace what each index means
   */
  weighted(tag: string, weights: readonly number[], names?: readonly string[]): number {
    if (weights.length === 1) return 0;
    const answerOf = (value: number): number =>
      (weights[value] ?? 0) > 0 ? value : Math.max(0, weights.findIndex(isPositive));
    const index = this.choose(
      tag,
      weights.length,
      (random) => pickWeighted(random, weights),
      (value) => names?.[answerOf(value)],
    );
    const answer = answerOf(index);
    const next = weights.findIndex((one, at) => isPositive(one) && at > answer);
    this.nextValues[this.nextValues.length - 1] = next > index ? next : -1;
    return answer;
  }

  /** Returns one of the values; the first one is the dullest. */
  among<const Value>(tag: string, values: readonly [Value, ...Value[]]): Value {
    const nameOf = (index: number): string | undefined => nameOfValue(values[index]);
    return values[this.choose(tag, values.length, undefined, nameOf)] ?? values[0];
  }

  #answer(bound: number, pick: ((random: Random) => number) | undefined): number {
    if (this.seeded !== undefined) return pick?.(this.seeded) ?? this.seeded.below(bound);
    return (this.#list[this.recorded.length] ?? 0) % bound;
  }
}

function isPositive(value: number): boolean {
  return value > 0;
}

/** Returns what a trace says of a value; nothing of an object. */
function nameOfValue(value: unknown): string | undefined {
  return typeof value === "object" || typeof value === "function" ? undefined : String(value);
}

function requireWhole(list: readonly number[]): void {
  const at = list.findIndex((value) => !Number.isSafeInteger(value) || value < 0);
  if (at < 0) return;
  throw new RangeError(`decision ${at} is ${String(list[at])}, not a whole number of 0 or more`);
}

function pickWeighted(random: Random, weights: readonly number[]): number {
  let sum = 0;
  for (const weight of weights) sum += weight;
  let rest = random.below(Math.max(1, sum));
  for (const [index, weight] of weights.entries()) {
    if (rest < weight) return index;
    rest -= weight;
  }
  return 0;
}

/** Returns the list without the zeroes at its end, which say nothing. */
export function trimmed(list: readonly number[]): number[] {
  return list.slice(0, list.findLastIndex((value) => value !== 0) + 1);
}
