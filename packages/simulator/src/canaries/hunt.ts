import type { Canary } from "./canary.ts";
import { plantCanary } from "./load-hook.ts";

/** How a canary was found. */
export interface Hunt {
  readonly id: string;
  /** Seeds that each finding took, none longer than the canary's budget. */
  readonly seeds: readonly number[];
  /** The kind of the first failure. Absent when nothing was found. */
  readonly kind?: string;
  /** Decisions of the first failure, and after shrinking: how many, and how many of them are not 0. */
  readonly before?: readonly [count: number, nonZero: number];
  readonly after?: readonly [count: number, nonZero: number];
  /** The shrunk list. */
  readonly decisions?: readonly number[];
  readonly shrinkRuns?: number;
}

/**
 * Plants a bug in this process and lets its world live until it is found so many times.
 *
 * Nothing of what is tested may be loaded yet.
 *
 * @param findings - how often to find it
 * @param shrinkRunsMax - runs to spend on shrinking the first finding, 0 for none
 * @throws Error its text does not match, or its module is not part of the world
 */
export async function hunt(canary: Canary, findings: number, shrinkRunsMax: number): Promise<Hunt> {
  const planted = plantCanary(canary);
  const { findWorld, runSeed, shrink, trimmed } = await import("../index.ts");
  const world = findWorld(canary.world);
  if (!planted.isLoaded) throw new Error(`canary ${canary.id}: ${canary.file} was never loaded`);
  const seeds: number[] = [];
  let found: Hunt = { id: canary.id, seeds };
  let last = 0;
  for (let seed = 1; seeds.length < findings && seed - last <= canary.seedsMax; seed += 1) {
    const outcome = await runSeed(world, seed);
    if (outcome.failure === undefined) continue;
    seeds.push(seed - last);
    last = seed;
    if (seeds.length > 1 || shrinkRunsMax === 0) {
      found = { kind: outcome.failure.kind, ...found };
      continue;
    }
    const { decisions, runs } = await shrink(world, outcome, { runsMax: shrinkRunsMax });
    found = {
      ...found,
      kind: outcome.failure.kind,
      before: sizes(trimmed(outcome.decisions)),
      after: sizes(decisions),
      decisions,
      shrinkRuns: runs,
    };
  }
  return found;
}

function sizes(list: readonly number[]): readonly [number, number] {
  return [list.length, list.filter((value) => value !== 0).length];
}
