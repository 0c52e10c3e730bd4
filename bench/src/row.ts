import type { Workplace } from "./workplace.ts";

export interface BenchSettings {
  readonly workplace: Workplace;
  /** How often each contestant has its turn. */
  readonly rounds: number;
  /** Seconds of one turn. */
  readonly seconds: number;
}

/** A line of the table. */
export interface Row {
  readonly what: string;
  /** Our figure, with its unit. */
  readonly ours: string;
  /** The peer and its figure; absent where the goal is absolute. */
  readonly peer?: string;
  /** Ours by the peer's; or the figure itself where the goal is absolute. */
  readonly ratio?: number;
  readonly goal: string;
  /** `undefined` when the peer is not installed. */
  readonly isMet: boolean | undefined;
}

/** The middle one of an odd number of figures, or the mean of the two in the middle. */
export function median(figures: readonly number[]): number {
  const sorted = figures.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? upper) + upper) / 2;
}

/** Lets contestants measure in turns, A B A B, and returns the median of each. */
export async function interleave<Name extends string>(
  rounds: number,
  contestants: Readonly<Record<Name, () => Promise<number>>>,
): Promise<Record<Name, number>> {
  const names = Object.keys(contestants) as Name[];
  const figures = new Map(names.map((name) => [name, [] as number[]]));
  for (let round = 0; round < rounds; round += 1) {
    for (const name of names) figures.get(name)?.push(await contestants[name]());
  }
  return Object.fromEntries(names.map((name) => [name, median(figures.get(name) ?? [])])) as Record<
    Name,
    number
  >;
}
