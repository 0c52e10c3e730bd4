import { realEnv } from "@blocklayer/env";
import { type ExplorationReport, explore } from "../exhaustive.ts";
import type { World } from "../simulation.ts";
import { spaces } from "./all-spaces.ts";

/** Runs after which a space that has grown too large is cut off. */
const RUNS_MAX = 1_000_000;

/** Returns a line about an exploration, and one for each failure that was described. */
export function describeExploration(report: ExplorationReport, seconds: number): string {
  const { world, runs, distinct, failures, described, isComplete } = report;
  const end = isComplete ? "complete" : `CUT OFF after ${runs} runs`;
  const lines = described.map(
    ({ decisions, message }) => `  ${message}\n  [${decisions.join(",")}]`,
  );
  const title = `${world}: ${runs} runs, ${distinct} distinct traces, ${failures} failures, ${seconds.toFixed(1)} s, ${end}`;
  return [title, ...lines].join("\n");
}

/**
 * Explores all spaces and prints what came of them.
 *
 * @returns the exit code: 1 when something failed or was cut off
 */
export async function exploreAll(
  print: (line: string) => void,
  list: readonly World[] = spaces,
  runsMax: number = RUNS_MAX,
): Promise<number> {
  const { clock } = realEnv();
  let isGood = true;
  let sum = 0;
  for (const space of list) {
    const startMs = clock.now();
    const report = await explore(space, { runsMax, failuresMax: 100 });
    print(describeExploration(report, (clock.now() - startMs) / 1000));
    sum += report.runs;
    isGood &&= report.isComplete && report.failures === 0;
  }
  print(`exhaustive: ${list.length} spaces, ${sum} runs, ${isGood ? "0 failures" : "NOT GOOD"}`);
  return isGood ? 0 : 1;
}
