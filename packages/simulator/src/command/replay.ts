import { type DecisionSource, trimmed } from "../decisions.ts";
import { runSeed } from "../run-seed.ts";
import { shrink } from "../shrink.ts";
import type { World } from "../simulation.ts";

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
  const { source, isShrunk, shrinkRunsMax, print } = options;
  let outcome = await runSeed(world, source, { keepsLines: true });
  if (outcome.failure !== undefined && isShrunk) {
    const before = trimmed(outcome.decisions).length;
    const { decisions, runs } = await shrink(world, outcome, { runsMax: shrinkRunsMax });
    outcome = await runSeed(world, decisions, { keepsLines: true });
    print(`shrunk from ${before} to ${decisions.length} decisions in ${runs} runs`);
    print(`[${decisions.join(",")}]`);
  }
  for (const line of outcome.lines) print(line);
  const { failure, hash, events, decisions } = outcome;
  const what = typeof source === "number" ? `seed ${source}` : `${source.length} given decisions`;
  print(
    `${world.name} ${what}: ${events} events, ${decisions.length} decisions, hash ${hash}, ${failure?.message ?? "no failure"}`,
  );
  return failure === undefined ? 0 : 1;
}

/**
 * Reads decisions: a list in JSON, or a line that a night has written.
 *
 * @throws Error the text is neither
 */
export function readDecisions(text: string): readonly number[] {
  const value: unknown = JSON.parse(text.trim().split("\n").at(-1) ?? "");
  const list = Array.isArray(value) ? value : (value as { decisions?: unknown }).decisions;
  if (Array.isArray(list) && list.every((one) => Number.isSafeInteger(one) && one >= 0)) {
    return list as number[];
  }
  throw new Error("there are no decisions: a list of numbers, or an object with `decisions`");
}
