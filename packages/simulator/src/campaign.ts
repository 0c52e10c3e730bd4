import type { Drain } from "./drain.ts";
import { runSeed } from "./run-seed.ts";
import type { World } from "./simulation.ts";

/** A seed that failed. */
export interface FailedSeed {
  readonly world: string;
  readonly seed: number;
  readonly message: string;
}

/** What many lives of a world came to. */
export interface CampaignReport {
  readonly world: string;
  readonly seeds: number;
  readonly events: number;
  readonly failures: readonly FailedSeed[];
  /** Lives in which each rare situation happened. */
  readonly counts: ReadonlyMap<string, number>;
}

export interface CampaignOptions {
  /** The first seed. Default 1. */
  readonly from?: number;
  readonly seeds: number;
  readonly drain?: Drain;
  /** Told of each failure as it is found. */
  readonly onFailure?: (failure: FailedSeed) => void;
}

/** Lets a world live from many seeds, one after the other. */
export async function runCampaign(world: World, options: CampaignOptions): Promise<CampaignReport> {
  const { from = 1, seeds, drain, onFailure } = options;
  const failures: FailedSeed[] = [];
  const counts = new Map<string, number>();
  let events = 0;
  for (let seed = from; seed < from + seeds; seed += 1) {
    const outcome = await runSeed(world, seed, drain === undefined ? {} : { drain });
    events += outcome.events;
    for (const name of outcome.counts.keys()) counts.set(name, (counts.get(name) ?? 0) + 1);
    if (outcome.failure === undefined) continue;
    const failure = { world: world.name, seed, message: outcome.failure.message };
    failures.push(failure);
    onFailure?.(failure);
  }
  return { world: world.name, seeds, events, failures, counts };
}
