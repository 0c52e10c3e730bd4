/** The command `sim`: lives of the worlds, replays, and the hunt for planted bugs. */
import { readFileSync } from "node:fs";
import type { Canary } from "./canaries/canary.ts";
import { canaries } from "./canaries/canary-list.ts";
import { type CliOptions, readCliOptions, USAGE } from "./cli-options.ts";
import { campaigns } from "./command/campaigns.ts";
import { huntAll } from "./command/canary-hunts.ts";
import { Night } from "./command/night.ts";
import { readDecisions, replay } from "./command/replay.ts";
import type { DecisionSource } from "./decisions.ts";
import { exploreAll } from "./exhaustive/explore-all.ts";
import type { World } from "./simulation.ts";
import { sweepAll } from "./sweeps/sweep-all.ts";
import { findWorld, worlds } from "./worlds/all-worlds.ts";

const CANARY_FINDINGS = 5;
const SHRINK_RUNS = 1500;

/** What was asked for, with everything that it names. */
interface Request {
  readonly options: CliOptions;
  readonly chosen: readonly World[];
  readonly planted: readonly Canary[];
  /** A life to be replayed. */
  readonly source: DecisionSource | undefined;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** Returns the exit code. */
async function main(args: readonly string[]): Promise<number> {
  let request: Request;
  try {
    request = readRequest(readCliOptions(args));
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
    return 2;
  }
  const { options, chosen, planted, source } = request;
  const { jobs, seeds, from, seconds } = options;
  if (options.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  if (options.night) return night(request);
  if (options.exhaustive) return exploreAll(print);
  if (options.sweeps) return sweepAll(print);
  if (planted.length > 0) {
    const shrinkRunsMax = SHRINK_RUNS;
    return huntAll(planted, { findings: CANARY_FINDINGS, shrinkRunsMax, jobs, print });
  }
  const [world] = chosen;
  if (source !== undefined && world !== undefined) {
    const isShrunk = options.shrink;
    return replay(world, { source, isShrunk, shrinkRunsMax: SHRINK_RUNS, print });
  }
  return campaigns(chosen, { seeds, from, seconds, jobs, print });
}

/** @throws Error there is no world, planted bug or file of a name */
function readRequest(options: CliOptions): Request {
  const { decisions, seed } = options;
  const chosen = options.worlds.length === 0 ? worlds : options.worlds.map(findWorld);
  const planted = options.canaries ? canaries : options.canary.map(findCanary);
  const source = decisions === undefined ? seed : readDecisions(readFileSync(decisions, "utf8"));
  return { options, chosen, planted, source };
}

/** @throws RangeError there is no planted bug of that name */
function findCanary(id: string): Canary {
  const canary = canaries.find((one) => one.id === id);
  if (canary !== undefined) return canary;
  throw new RangeError(`there is no canary '${id}'`);
}

function night({ options, chosen }: Request): Promise<number> {
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => stop.abort());
  const { jobs, hours, out } = options;
  const { signal } = stop;
  return new Night({ worlds: chosen, canaries, hours, jobs, file: out, print, signal }).run();
}

process.exitCode = await main(process.argv.slice(2));
