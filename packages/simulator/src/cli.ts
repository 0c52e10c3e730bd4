/** The command `sim`: lives of the worlds, replays, and the hunt for planted bugs. */
import { realEnv } from "@blocklayer/env";
import { runCampaign } from "./campaign.ts";
import { canaries } from "./canaries/canary-list.ts";
import { describeHunt, huntInProcess } from "./canaries/hunt-all.ts";
import { type CliOptions, readCliOptions, USAGE } from "./cli-options.ts";
import { trimmed } from "./decisions.ts";
import { runSeed } from "./run-seed.ts";
import { shrink } from "./shrink.ts";
import type { World } from "./simulation.ts";
import { findWorld, worlds } from "./worlds/all-worlds.ts";

const CANARY_FINDINGS = 5;
const SHRINK_RUNS = 1500;
const { clock } = realEnv();

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** Returns the exit code. */
async function main(args: readonly string[]): Promise<number> {
  let options: CliOptions;
  let chosen: readonly World[];
  try {
    options = readCliOptions(args);
    chosen = options.worlds.length === 0 ? worlds : options.worlds.map(findWorld);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
    return 2;
  }
  if (options.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  if (options.canaries) return huntAll();
  const [world] = chosen;
  if (options.seed !== undefined && world !== undefined) {
    return replay(world, options.seed, options.shrink);
  }
  return campaigns(chosen, options);
}

async function campaigns(chosen: readonly World[], options: CliOptions): Promise<number> {
  let failureCount = 0;
  for (const world of chosen) {
    const startMs = clock.now();
    const { seeds, events, failures, counts } = await runCampaign(world, {
      from: options.from,
      seeds: options.seeds,
      onFailure: ({ seed, message }) => print(`${world.name} seed ${seed}: ${message}`),
    });
    const seconds = (clock.now() - startMs) / 1000;
    const rate = Math.round(seeds / seconds);
    const failed = failures.map(({ seed }) => seed).join(", ");
    print(
      `${world.name}: ${seeds} seeds, ${rate} seeds/s, ${events} events, ${failures.length} failures` +
        (failed === "" ? "" : ` (seeds ${failed})`),
    );
    for (const [name, lives] of [...counts].sort(byName)) print(`  in ${lives} lives: ${name}`);
    failureCount += failures.length;
  }
  return failureCount > 0 ? 1 : 0;
}

function byName([one]: [string, number], [two]: [string, number]): number {
  return one < two ? -1 : 1;
}

async function replay(world: World, seed: number, isShrunk: boolean): Promise<number> {
  let outcome = await runSeed(world, seed, { keepsLines: true });
  if (outcome.failure !== undefined && isShrunk) {
    const before = trimmed(outcome.decisions).length;
    const { decisions, runs } = await shrink(world, outcome, { runsMax: SHRINK_RUNS });
    outcome = await runSeed(world, decisions, { keepsLines: true });
    print(`shrunk from ${before} to ${decisions.length} decisions in ${runs} runs`);
    print(`[${decisions.join(",")}]`);
  }
  for (const line of outcome.lines) print(line);
  const { failure, hash, events, decisions } = outcome;
  print(
    `${world.name} seed ${seed}: ${events} events, ${decisions.length} decisions, hash ${hash}, ${failure?.message ?? "no failure"}`,
  );
  return failure === undefined ? 0 : 1;
}

async function huntAll(): Promise<number> {
  let missing = 0;
  for (const canary of canaries) {
    const result = await huntInProcess(canary, CANARY_FINDINGS, SHRINK_RUNS);
    if (result.seeds.length === 0) missing += 1;
    print(describeHunt(canary, result));
  }
  print(`canaries: ${canaries.length - missing} of ${canaries.length} found`);
  return missing > 0 ? 1 : 0;
}

process.exitCode = await main(process.argv.slice(2));
