import { type Drain, turnDrain } from "./drain.ts";
import { type Outcome, runSeed } from "./run-seed.ts";
import type { World } from "./simulation.ts";
import { SimulationFailure } from "./simulation-failure.ts";

/** A seed that failed. */
export interface FailedSeed {
  readonly world: string;
  readonly seed: number;
  /** Class of the finding, without numbers. */
  readonly kind: string;
  readonly message: string;
}

/** What many lives of a world came to. */
export interface CampaignReport {
  readonly world: string;
  readonly seeds: number;
  readonly events: number;
  /** 16 hexadecimal digits: equal when each of the same seeds had an equal trace, in whatever order they were run. */
  readonly hash: string;
  readonly failures: readonly FailedSeed[];
  /** Lives in which each rare situation happened. */
  readonly counts: ReadonlyMap<string, number>;
  /** Situations of the world that happened in none of them, sorted. */
  readonly missing: readonly string[];
  /** Milliseconds that each life took, in no order; empty without a clock. */
  readonly costsMs: readonly number[];
}

export interface CampaignOptions {
  /** The first seed. Default 1. */
  readonly from?: number;
  readonly seeds: number;
  readonly drain?: Drain;
  /** Told of each seed before its life begins. */
  readonly onBegin?: (seed: number) => void;
  /** Told of each failure as it is found. */
  readonly onFailure?: (failure: FailedSeed) => void;
  /** Milliseconds since whenever, to tell what a life costs. Default: nobody tells. */
  readonly now?: () => number;
  /**
   * The first seed, and one of so many, is run twice and has to leave the same trace. The second time goes by
   * turns of the event loop: then rejections that are handled a turn too late, which end a process, are failures. Default 100.
   */
  readonly repeatedOf?: number;
}

/** Lets a world live from many seeds, one after the other. */
export async function runCampaign(world: World, options: CampaignOptions): Promise<CampaignReport> {
  const { from = 1, seeds, onBegin, onFailure, now, repeatedOf = 100 } = options;
  const failures: FailedSeed[] = [];
  const counts = new Map<string, number>();
  const costsMs: number[] = [];
  let events = 0;
  let hash = NO_HASH;
  for (let seed = from; seed < from + seeds; seed += 1) {
    onBegin?.(seed);
    const startMs = now?.() ?? 0;
    const outcome = await live(world, seed, options);
    if (now !== undefined) costsMs.push(now() - startMs);
    events += outcome.events;
    hash = combineHashes(hash, seedHash(seed, outcome.hash));
    for (const name of outcome.counts.keys()) counts.set(name, (counts.get(name) ?? 0) + 1);
    const isRepeated = seed === from || seed % repeatedOf === 0;
    const again = isRepeated
      ? await live(world, seed, { ...options, drain: turnDrain() })
      : outcome;
    const found = outcome.failure ?? again.failure ?? differenceOf(outcome, again);
    if (found === undefined) continue;
    const failure = { world: world.name, seed, kind: found.kind, message: found.message };
    failures.push(failure);
    onFailure?.(failure);
  }
  const missing = world.situations.filter((name) => !counts.has(name)).sort(byText);
  return { world: world.name, seeds, events, hash, failures, counts, missing, costsMs };
}

function live(world: World, seed: number, { drain }: CampaignOptions): Promise<Outcome> {
  return runSeed(world, seed, drain === undefined ? {} : { drain });
}

function differenceOf(one: Outcome, two: Outcome): SimulationFailure | undefined {
  if (one.hash === two.hash) return undefined;
  const message = `the trace ${one.hash} of ${one.events} events, then ${two.hash} of ${two.events}`;
  return new SimulationFailure("not deterministic", message);
}

/** Returns the report of a seed whose life could not be lived to its end. @param lives - seeds that this counts as, 0 or 1 */
export function reportOf(failure: FailedSeed, lives: 0 | 1): CampaignReport {
  return {
    world: failure.world,
    seeds: lives,
    events: 0,
    hash: NO_HASH,
    failures: [failure],
    counts: new Map(),
    missing: [],
    costsMs: [],
  };
}

/** The hash of no life at all. */
const NO_HASH = "0".repeat(16);

/** A trace's hash that another seed's can not take the place of. */
function seedHash(seed: number, hash: string): string {
  const mixed = words(hash).map((word) => Math.imul(word ^ seed, 0x9e3779b1));
  return textOf(mixed);
}

/** Adds hashes word by word: the order says nothing. */
function combineHashes(one: string, two: string): string {
  const others = words(two);
  return textOf(words(one).map((word, index) => word + (others[index] ?? 0)));
}

function words(hash: string): number[] {
  return [Number.parseInt(hash.slice(0, 8), 16), Number.parseInt(hash.slice(8), 16)];
}

function textOf(list: readonly number[]): string {
  return list.map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
}

/** Puts reports of one world together. Equal for equal seeds, however they were divided. */
export function mergeReports(world: string, reports: readonly CampaignReport[]): CampaignReport {
  const counts = new Map<string, number>();
  for (const report of reports) {
    for (const [name, lives] of report.counts) counts.set(name, (counts.get(name) ?? 0) + lives);
  }
  const sum = (of: (report: CampaignReport) => number): number =>
    reports.reduce((total, report) => total + of(report), 0);
  return {
    world,
    seeds: sum(({ seeds }) => seeds),
    events: sum(({ events }) => events),
    hash: reports.reduce((total, { hash }) => combineHashes(total, hash), NO_HASH),
    failures: reports.flatMap(({ failures }) => failures).sort((one, two) => one.seed - two.seed),
    counts,
    missing: [...new Set(reports.flatMap(({ missing }) => missing))]
      .filter((name) => !counts.has(name))
      .sort(byText),
    costsMs: reports.flatMap(({ costsMs }) => costsMs),
  };
}

/** Returns the value that so large a part of the values is below; 0 of none. */
export function quantile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((one, two) => one - two);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0;
}

function byText(one: string, two: string): number {
  return one < two ? -1 : 1;
}
