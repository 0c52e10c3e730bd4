import { type DecisionSource, trimmed } from "../decisions.ts";
import { type Outcome, runSeed } from "../run-seed.ts";
import { shrink } from "../shrink.ts";
import type { World } from "../simulation.ts";

/** Runs that shrinking may take. */
export const SHRINK_RUNS = 1500;

export interface ReplayOptions {
  /** A seed, or decisions. */
  readonly source: DecisionSource;
  /** Looks for the dullest life that fails alike. */
  readonly isShrunk: boolean;
  /** Runs to do so with. */
  readonly shrinkRunsMax: number;
  readonly print: (line: string) => void;
}

/** Lives one life and prints a line for everything that happened. Returns the exit code. */
export async function replay(world: World, options: ReplayOptions): Promise<number> {
  const { source, isShrunk, print } = options;
  const what = typeof source === "number" ? `seed ${source}` : `${source.length} given decisions`;
  const name = `${world.name} ${what}`;
  const outcome = await runSeed(world, source, { keepsLines: true });
  if (outcome.failure !== undefined && isShrunk) return replayShrunk(world, name, outcome, options);
  tell(name, outcome, print);
  return outcome.failure === undefined ? 0 : 1;
}

async function replayShrunk(
  world: World,
  name: string,
  failed: Outcome,
  { shrinkRunsMax, print }: ReplayOptions,
): Promise<number> {
  const { decisions, runs } = await shrink(world, failed, { runsMax: shrinkRunsMax });
  tell(`${name}, shrunk`, await runSeed(world, decisions, { keepsLines: true }), print);
  const before = trimmed(failed.decisions).length;
  const end = runs < shrinkRunsMax ? "" : ", which is the limit: there may be a duller life";
  print(`shrunk from ${before} to ${decisions.length} decisions in ${runs} runs${end}`);
  print(`[${decisions.join(",")}]`);
  return 1;
}

function tell(name: string, outcome: Outcome, print: (line: string) => void): void {
  const { lines, failure, hash, events, decisions } = outcome;
  for (const line of lines) print(line);
  const numbers = `${events} events, ${decisions.length} decisions, hash ${hash}`;
  print(`${name}: ${numbers}, ${failure?.message ?? "no failure"}`);
  const place = placeOf(failure?.stack);
  if (place !== undefined) print(`  ${place}`);
}

/** Files that only pass on what others found. */
const MESSENGERS = /\/simulator\/src\/(simulation|simulation-failure|world-scheduler|run-seed)\.ts/;

/** Returns the first line of a stack that says where something was found. */
export function placeOf(stack: string | undefined): string | undefined {
  const frames = (stack ?? "").split("\n").filter((line) => /^\s+at /.test(line));
  const place = frames.find((line) => !MESSENGERS.test(line)) ?? frames[0];
  return place?.trim().replace(/file:\/\/\/.*\/packages\//, "packages/");
}
