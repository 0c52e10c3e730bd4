/** The command `sim`: lives of the worlds, replays, and the hunt for planted bugs. */
import { canaries } from "./canaries/canary-list.ts";
import { replayInProcess } from "./canaries/hunt-all.ts";
import { readCliOptions, USAGE } from "./cli-options.ts";
import { campaigns } from "./command/campaigns.ts";
import { huntAll } from "./command/canary-hunts.ts";
import { listAll } from "./command/list.ts";
import { Night } from "./command/night.ts";
import { exitCodeOf, print, stopWhenNobodyReads } from "./command/output.ts";
import { replay, SHRINK_RUNS } from "./command/replay.ts";
import { callersPath, type Request, readRequest } from "./command/request.ts";
import { exploreAll } from "./exhaustive/explore-all.ts";
import { sweepAll } from "./sweeps/sweep-all.ts";

const CANARY_FINDINGS = 5;
const SIGNALS = ["SIGINT", "SIGTERM"] as const;
type Signal = (typeof SIGNALS)[number];

/** Returns the exit code. */
async function main(args: readonly string[]): Promise<number> {
  let request: Request;
  try {
    const read = readCliOptions(args);
    if (read.help) {
      process.stdout.write(USAGE);
      return 0;
    }
    request = readRequest(read);
  } catch (error) {
    return refuse(error);
  }
  const { options, chosen, planted, source } = request;
  if (options.list) return listAll(print);
  if (options.night) return night(request);
  if (options.exhaustive) return exploreAll(print);
  if (options.sweeps) return sweepAll(print);
  const [world] = chosen;
  const [canary] = planted;
  if (source !== undefined && world !== undefined) {
    const isShrunk = options.shrink;
    if (canary === undefined) {
      return replay(world, { source, isShrunk, shrinkRunsMax: SHRINK_RUNS, print });
    }
    exitWhenTold();
    return replayInProcess(canary, source, isShrunk ? SHRINK_RUNS : 0);
  }
  if (planted.length > 0) {
    exitWhenTold();
    const { jobs } = options;
    const shrinkRunsMax = SHRINK_RUNS;
    return huntAll(planted, { findings: CANARY_FINDINGS, shrinkRunsMax, jobs, print });
  }
  return live(request);
}

function refuse(error: unknown): number {
  const message = error instanceof Error ? error.message : String(error);
  // What Node adds about arguments is about other commands.
  const told = error instanceof TypeError ? message.split(/\.\s/)[0] : message;
  process.stderr.write(`${told}\nsim --help shows what there is\n`);
  return 2;
}

async function live({ options, chosen }: Request): Promise<number> {
  const told = whenTold();
  const code = await campaigns(chosen, { ...options, print, signal: told.signal });
  return told.by === undefined ? code : exitCodeOf(told.by);
}

async function night({ options, chosen }: Request): Promise<number> {
  const { jobs, hours, out, lifeMs } = options;
  const { signal } = whenTold();
  const file = callersPath(out);
  let one: Night;
  try {
    one = new Night({ worlds: chosen, canaries, hours, jobs, lifeMs, file, print, signal });
  } catch (error) {
    return refuse(error);
  }
  return one.run();
}

/** Waits for a signal that tells the command to stop; the second one ends it at once. */
function whenTold(): { readonly signal: AbortSignal; readonly by: Signal | undefined } {
  const stop = new AbortController();
  const told: { readonly signal: AbortSignal; by: Signal | undefined } = {
    signal: stop.signal,
    by: undefined,
  };
  for (const signal of SIGNALS) {
    process.once(signal, () => {
      told.by ??= signal;
      stop.abort();
    });
  }
  return told;
}

/** Ends with all children when it is told. */
function exitWhenTold(): void {
  for (const signal of SIGNALS) process.once(signal, () => process.exit(exitCodeOf(signal)));
}

stopWhenNobodyReads();
process.exitCode = await main(process.argv.slice(2));
