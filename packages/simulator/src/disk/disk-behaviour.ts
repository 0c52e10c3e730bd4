/** How a request to a simulated disk can end, dullest first. */
export const FATES = [
  "at once",
  "later",
  "early",
  "slow",
  "failed",
  "partly",
  "full",
  "latent",
] as const;

/**
 * | fate | effect on the content | completion |
 * | --- | --- | --- |
 * | `at once` | within the call | within the call |
 * | `later` | at completion | when the scheduler says |
 * | `early` | within the call | when the scheduler says |
 * | `slow` | at completion | after up to 10 s of simulated time |
 * | `failed` | none | `EIO`, when the scheduler says |
 * | `partly` | a first part is written | `EIO`, when the scheduler says |
 * | `full` | a first part is written | `ENOSPC`, when the scheduler says |
 * | `latent` | a sector can not be read until it is written again | `EIO`, when the scheduler says |
 */
export type Fate = (typeof FATES)[number];

export type DiskOperation = "read" | "write" | "zeroes" | "discard" | "flush" | "status";

/** What a discarded range reads as. */
export type DiscardEffect = "zeroes" | "keep" | "scramble";

/** How often each fate befalls a request, as weights. */
export interface DiskBehaviour {
  readonly atOnce: number;
  readonly later: number;
  readonly early: number;
  readonly slow: number;
  /** Weight of each failure that an operation can have; 0 for a disk without faults. */
  readonly faults: number;
}

/** Everything is done within the call. */
export const PROMPT: DiskBehaviour = { atOnce: 1, later: 0, early: 0, slow: 0, faults: 0 };

const FAILURES: Readonly<Record<DiskOperation, readonly Fate[]>> = {
  read: ["failed", "latent"],
  write: ["failed", "partly", "full"],
  zeroes: ["failed", "partly", "full"],
  discard: ["failed"],
  flush: ["failed"],
  status: [],
};

/** Returns a weight for each of {@link FATES}. */
export function fateWeights(behaviour: DiskBehaviour, operation: DiskOperation): number[] {
  const { atOnce, later, early, slow, faults } = behaviour;
  const failures = FAILURES[operation];
  return FATES.map((fate, index) => {
    if (index < 4) return [atOnce, later, early, slow][index] ?? 0;
    return failures.includes(fate) ? faults : 0;
  });
}
