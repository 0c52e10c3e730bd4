import { realEnv } from "@blocklayer/env";
import { type CampaignReport, type FailedSeed, mergeReports, quantile } from "../campaign.ts";
import type { World } from "../simulation.ts";
import { Workers } from "./workers.ts";

/** Seeds of one task. */
const SEEDS_PER_TASK = 100;
/** Failures of a world that are printed; the others are counted. */
const PRINTED_MAX = 20;
/** Letters of a kind that are printed. */
const KIND_MAX = 100;
/** How the command is started in the repository. */
export const COMMAND = "npx pnpm@12.21.0 sim";

export interface CampaignsOptions {
  readonly from: number;
  /** Of each world. */
  readonly seeds: number;
  /** Seconds for all worlds together; each gets its share. `undefined` for as long as the seeds take. */
  readonly seconds: number | undefined;
  /** Processes. */
  readonly jobs: number;
  /** Milliseconds that one life may take. `undefined`: as long as is usual. */
  readonly lifeMs: number | undefined;
  readonly print: (line: string) => void;
  /** Aborted when it is to stop: it ends with what it has so far. */
  readonly signal: AbortSignal;
}

const { clock } = realEnv();

/** Lets worlds live from many seeds and prints what came of it. Returns the exit code. */
export async function campaigns(
  worlds: readonly World[],
  options: CampaignsOptions,
): Promise<number> {
  const { jobs: count, lifeMs, signal, seconds, print } = options;
  const workers = new Workers({ count, lifeMs, signal });
  const startMs = clock.now();
  const reports: CampaignReport[] = [];
  try {
    for (const [index, { name }] of worlds.entries()) {
      if (signal.aborted) break;
      const restMs = (seconds ?? Number.POSITIVE_INFINITY) * 1000 - (clock.now() - startMs);
      const limitMs = Math.max(0, restMs / (worlds.length - index));
      const worldStartMs = clock.now();
      const report = await campaign(name, options, limitMs, workers);
      reports.push(report);
      tell(report, clock.now() - worldStartMs, options);
    }
  } finally {
    workers.close();
  }
  if (worlds.length > 1) {
    const summary = summaryOf(mergeReports("all worlds", reports), clock.now() - startMs);
    print(`${summary}${signal.aborted ? ", interrupted" : ""}`);
  }
  return reports.some(({ failures }) => failures.length > 0) ? 1 : 0;
}

async function campaign(
  world: string,
  { from, seeds, jobs, signal }: CampaignsOptions,
  limitMs: number,
  workers: Workers,
): Promise<CampaignReport> {
  const endMs = clock.now() + limitMs;
  const reports: CampaignReport[] = [];
  let next = from;
  // The last seeds are divided, so that no process waits for another.
  const perTask = Math.max(1, Math.min(SEEDS_PER_TASK, Math.ceil(seeds / jobs / 4)));
  const work = async (): Promise<void> => {
    while (next < from + seeds && clock.now() < endMs && !signal.aborted) {
      const first = next;
      next = Math.min(from + seeds, first + perTask);
      const { report } = await workers.run({
        kind: "seeds",
        world,
        from: first,
        seeds: next - first,
        limitMs: endMs - clock.now(),
      });
      if (report !== undefined) reports.push(report);
    }
  };
  await Promise.all(Array.from({ length: jobs }, work));
  return mergeReports(world, reports);
}

/** Prints what came of one world. */
function tell(report: CampaignReport, wallMs: number, { print, signal }: CampaignsOptions): void {
  const { world, failures, counts, missing } = report;
  for (const { seed, message } of failures.slice(0, PRINTED_MAX)) {
    print(`${world} seed ${seed}: ${message}`);
  }
  print(`${summaryOf(report, wallMs)}${signal.aborted ? ", interrupted" : ""}`);
  for (const [kind, count] of countsByKind(failures)) print(`  ${count} × ${kind}`);
  const [first] = failures;
  if (first !== undefined) {
    print(`  replay: ${COMMAND} --world ${world} --seed ${first.seed} --shrink`);
  }
  for (const [name, lives] of [...counts].sort(byName)) print(`  in ${lives} lives: ${name}`);
  for (const name of missing) print(`  in 0 lives: ${name}`);
}

/** Returns how many failures are of each kind, the most frequent one first. */
function countsByKind(failures: readonly FailedSeed[]): [string, number][] {
  const counts = new Map<string, number>();
  for (const { kind } of failures) {
    const name = (kind.split("\n")[0] ?? "").slice(0, KIND_MAX);
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return [...counts].sort(([, one], [, two]) => two - one);
}

/** One line about many lives. */
export function summaryOf(report: CampaignReport, wallMs: number): string {
  const { world, seeds, events, failures, costsMs, hash } = report;
  const rate = Math.round(seeds / Math.max(0.001, wallMs / 1000));
  const listed = failures.slice(0, PRINTED_MAX).map((one) => `${one.world} ${one.seed}`);
  const rest = failures.length > PRINTED_MAX ? ", …" : "";
  return [
    `${world}: ${seeds} seeds`,
    `${rate} seeds/s`,
    `${events} events`,
    `median ${quantile(costsMs, 0.5).toFixed(1)} ms`,
    `p99 ${quantile(costsMs, 0.99).toFixed(1)} ms`,
    `hash ${hash}`,
    `${failures.length} failures${failures.length === 0 ? "" : ` (${listed.join(", ")}${rest})`}`,
  ].join(", ");
}

function byName([one]: [string, number], [two]: [string, number]): number {
  return one < two ? -1 : 1;
}
