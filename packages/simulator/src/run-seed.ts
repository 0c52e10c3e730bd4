import { type DecisionSource, Decisions } from "./decisions.ts";
import type { Drain } from "./drain.ts";
import { Simulation, type World } from "./simulation.ts";
import { SimulationFailure } from "./simulation-failure.ts";
import { Trace } from "./trace.ts";
import { WorldScheduler } from "./world-scheduler.ts";

export interface RunOptions {
  /** Default: the fastest one there is. */
  readonly drain?: Drain;
  /** Keeps a readable line for everything that happens. Default `false`. */
  readonly keepsLines?: boolean;
  /** Keeps what came right after what. Default `false`. */
  readonly keepsFeatures?: boolean;
}

/** One life of a world. */
export interface Outcome {
  readonly failure: SimulationFailure | undefined;
  /** What was decided: replays the life. */
  readonly decisions: readonly number[];
  /** For each decision the next larger number that means something else, -1 when there is none. */
  readonly nextValues: readonly number[];
  /** Equal for equal lives. */
  readonly hash: string;
  /** Completions that were delivered. */
  readonly events: number;
  readonly counts: ReadonlyMap<string, number>;
  /** Hashes of what came right after what; empty unless they were kept. */
  readonly features: ReadonlySet<number>;
  /** Empty unless lines were kept. */
  readonly lines: readonly string[];
}

/**
 * Lets a world live once, from a seed or from recorded decisions. What goes wrong in it is the outcome, no rejection.
 *
 * Rejections that nobody handles count as failures, under Node.
 *
 * @throws RangeError the decisions have something else than whole numbers of 0 or more
 */
export async function runSeed(
  world: World,
  source: DecisionSource,
  options: RunOptions = {},
): Promise<Outcome> {
  const trace = new Trace(options);
  const decisions = new Decisions(source, trace);
  const { drain } = options;
  const scheduler = new WorldScheduler({ decisions, ...(drain === undefined ? {} : { drain }) });
  const simulation = new Simulation(scheduler);
  const failure = await observed(() => scheduler.run(() => world.run(simulation)));
  return {
    failure,
    decisions: decisions.recorded,
    nextValues: decisions.nextValues,
    hash: trace.hash,
    events: scheduler.events,
    counts: simulation.counts,
    features: trace.features,
    lines: trace.lines ?? [],
  };
}

/** Returns how `work` failed, be it by a rejection that nobody handled. */
async function observed(work: () => Promise<void>): Promise<SimulationFailure | undefined> {
  let unhandled: SimulationFailure | undefined;
  const note = (reason: unknown): void => {
    const { message } = SimulationFailure.of(reason);
    unhandled ??= new SimulationFailure("unhandled rejection", message);
  };
  const events = typeof process === "undefined" ? undefined : process;
  events?.on("unhandledRejection", note);
  const failure = await work().then(
    () => undefined,
    (error: unknown) => SimulationFailure.of(error),
  );
  // Node tells of them when a turn of the event loop is over, of those that a failed life left behind too.
  if (events !== undefined) await new Promise((resolve) => setImmediate(resolve));
  events?.off("unhandledRejection", note);
  return failure ?? unhandled;
}
