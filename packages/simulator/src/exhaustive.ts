import type { Drain } from "./drain.ts";
import { type Outcome, runSeed } from "./run-seed.ts";
import type { World } from "./simulation.ts";

/** Failures of one exploration that are described; the others are counted. */
const DESCRIBED_MAX = 5;

/** A run that failed, with the decisions that replay it. */
export interface FailedRun {
  readonly decisions: readonly number[];
  readonly message: string;
}

/** What all runs of a world came to. */
export interface ExplorationReport {
  readonly world: string;
  readonly runs: number;
  /** Runs that were not alike. */
  readonly distinct: number;
  readonly events: number;
  readonly failures: number;
  /** The first few failures. */
  readonly described: readonly FailedRun[];
  /** Whether there is no run that was not made; `false`: it was cut off. */
  readonly isComplete: boolean;
  /** Runs in which each rare situation happened. */
  readonly counts: ReadonlyMap<string, number>;
}

export interface ExploreOptions {
  /** Runs after which the exploration is cut off. Default: none. */
  readonly runsMax?: number;
  /** Failures after which the exploration is cut off. Default: none. */
  readonly failuresMax?: number;
  readonly drain?: Drain;
  /** Told of the decisions of each run before it begins. */
  readonly onBegin?: (decisions: readonly number[]) => void;
}

/**
 * Lives every life that a world has, depth first, like the wheels of an odometer: a run records what was decided and
 * what could have been decided instead; the next run changes the last decision that can be raised, and takes 0
 * for everything behind it.
 *
 * The world has to be tiny. What a run decides after it was clear that nothing new can come should not be asked: a
 * world ends there, and with it a whole branch.
 *
 * @see docs/reliability.md section 3.3.5
 */
export async function explore(
  world: World,
  options: ExploreOptions = {},
): Promise<ExplorationReport> {
  const { runsMax = Number.POSITIVE_INFINITY, failuresMax = Number.POSITIVE_INFINITY } = options;
  const traces = new Set<string>();
  const described: FailedRun[] = [];
  const counts = new Map<string, number>();
  let [runs, events, failures] = [0, 0, 0];
  let list: readonly number[] | undefined = [];
  while (list !== undefined && runs < runsMax && failures < failuresMax) {
    options.onBegin?.(list);
    const outcome: Outcome = await runSeed(world, list, drainOf(options));
    runs += 1;
    events += outcome.events;
    traces.add(outcome.hash);
    for (const name of outcome.counts.keys()) counts.set(name, (counts.get(name) ?? 0) + 1);
    const problem = outcome.failure?.message ?? notRepeated(list, outcome);
    if (problem !== undefined) {
      failures += 1;
      const { decisions } = outcome;
      if (described.length < DESCRIBED_MAX) described.push({ decisions, message: problem });
    }
    list = following(outcome);
  }
  const isComplete = list === undefined;
  const distinct = traces.size;
  return { world: world.name, runs, distinct, events, failures, described, isComplete, counts };
}

/** Returns the list that comes after a run, `undefined` when there is none. */
export function following({
  decisions,
  nextValues,
}: Pick<Outcome, "decisions" | "nextValues">): readonly number[] | undefined {
  const at = nextValues.findLastIndex((value) => value >= 0);
  return at < 0 ? undefined : [...decisions.slice(0, at), nextValues[at] ?? 0];
}

/** A run that did not take what it was given is not the one that was meant: something else than decisions plays a part. */
function notRepeated(list: readonly number[], { decisions }: Outcome): string | undefined {
  const at = list.findIndex((value, index) => decisions[index] !== value);
  return at < 0 ? undefined : `not repeatable: decision ${at} of [${list.join(",")}] was another`;
}

function drainOf({ drain }: ExploreOptions): { readonly drain?: Drain } {
  return drain === undefined ? {} : { drain };
}
