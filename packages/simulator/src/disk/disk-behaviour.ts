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
  "dropped",
  "lied",
  "misdirected",
] as const;

/**
 * | fate | effect on the content | completion |
 * | --- | --- | --- |
 * | `at once` | within the call | within the call |
 * | `later` | at completion | when the scheduler says |
 * | `early` | within the call | when the scheduler says |
 * | `slow` | at completion | after up to 10 s of simulated time |
 * | `failed` | none | `EIO`, when the scheduler says |
 * | `partly` | a first part is written; a change of length is made | `EIO`, when the scheduler says |
 * | `full` | a first part is written; a change of length is not made | `ENOSPC`, when the scheduler says |
 * | `latent` | a sector can not be read until it is written again | `EIO`, when the scheduler says |
 * | `dropped` | a flush forgets what it covers: no later one makes it stable, though reads still show it | `EIO`, when the scheduler says |
 * | `lied` | none: a flush that does nothing | when the scheduler says |
 * | `misdirected` | a write changes another place | when the scheduler says |
 */
export type Fate = (typeof FATES)[number];

export type DiskOperation =
  | "read"
  | "write"
  | "zeroes"
  | "discard"
  | "flush"
  | "status"
  | "truncate";

/** What a discarded range reads as. */
export type DiscardEffect = "zeroes" | "keep" | "scramble";

/** How often each fate befalls a request, as weights. */
export interface DiskBehaviour {
  readonly atOnce: number;
  readonly later: number;
  readonly early: number;
  readonly slow: number;
  /** What is done within the call and never fails, whatever the weights say. Default: nothing. */
  readonly prompt?: readonly DiskOperation[];
  /** Weight of each failure that an operation can have; 0 for a disk without faults. */
  readonly faults: number;
  /** Weight of flushes that fail and forget what they cover, as an operating system does. Default 0. */
  readonly drops?: number;
  /** Weight of flushes that claim to have succeeded: a disk that nothing can be trusted to. Default 0. */
  readonly lies?: number;
  /** Weight of writes that claim to have succeeded and went elsewhere: only checksums can tell. Default 0. */
  readonly misdirects?: number;
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
  truncate: ["failed", "partly", "full"],
};

/** Returns a weight for each of {@link FATES}. */
export function fateWeights(behaviour: DiskBehaviour, operation: DiskOperation): number[] {
  const { faults, drops = 0, lies = 0, misdirects = 0, prompt } = behaviour;
  if (prompt?.includes(operation) === true) return [1];
  const failures = FAILURES[operation];
  const isFlush = operation === "flush";
  return FATES.map((fate) => {
    switch (fate) {
      case "at once":
        return behaviour.atOnce;
      case "later":
      case "early":
      case "slow":
        return behaviour[fate];
      case "dropped":
        return isFlush ? drops : 0;
      case "lied":
        return isFlush ? lies : 0;
      case "misdirected":
        return operation === "write" ? misdirects : 0;
      default:
        return failures.includes(fate) ? faults : 0;
    }
  });
}
