import { realEnv } from "@blocklayer/env";
import { type CampaignReport, mergeReports, quantile } from "../campaign.ts";
import type { World } from "../simulation.ts";
import { runTask } from "./run-task.ts";
import type { Task, TaskResult } from "./tasks.ts";
import { Workers } from "./workers.ts";

/** Seeds of one task. */
const SEEDS_PER_TASK = 100;
/** Failures of a world that are printed; the others are counted. */
const PRINTED_MAX = 20;

export interface CampaignsOptions {
  readonly from: number;
  /** Of each world. */
  readonly seeds: number;
  /** Seconds for all worlds together; each gets its share. `undefined` for as long as the seeds take. */
  readonly seconds: number | undefined;
  /** Processes; 1 for this one. */
  readonly jobs: number;
  readonly print: (line: string) => void;
}

type RunTask = (task: Task) => Promise<TaskResult>;

const { clock } = realEnv();

/** Lets worlds live from many seeds and prints what came of it. Returns the exit code. */
export async function campaigns(
  worlds: readonly World[],
  options: CampaignsOptions,
): Promise<number> {
  const workers = options.jobs > 1 ? new Workers(options.jobs) : undefined;
  const run: RunTask = workers === undefined ? runTask : (task) => workers.run(task);
  const startMs = clock.now();
  const reports: CampaignReport[] = [];
  try {
    for (const [index, world] of worlds.entries()) {
      const restMs = (options.seconds ?? Number.POSITIVE_INFINITY) * 1000 - (clock.now() - startMs);
      const limitMs = Math.max(0, restMs / (worlds.length - index));
      reports.push(await campaign(world.name, options, limitMs, run));
    }
  } finally {
    workers?.close();
  }
  if (worlds.length > 1) {
    options.print(summaryOf(mergeReports("all worlds", reports), clock.now() - startMs));
  }
  return reports.some(({ failures }) => failures.length > 0) ? 1 : 0;
}

async function campaign(
  world: string,
  { from, seeds, jobs, print }: CampaignsOptions,
  limitMs: number,
  run: RunTask,
): Promise<CampaignReport> {
  const startMs = clock.now();
  const endMs = startMs + limitMs;
  const reports: CampaignReport[] = [];
  let printed = 0;
  let next = from;
  // The last seeds are divided, so that no process waits for another.
  const perTask = Math.max(1, Math.min(SEEDS_PER_TASK, Math.ceil(seeds / jobs / 4)));
  const work = async (): Promise<void> => {
    while (next < from + seeds && clock.now() < endMs) {
      const first = next;
      next = Math.min(from + seeds, first + perTask);
      const { report } = await run({
        kind: "seeds",
        world,
        from: first,
        seeds: next - first,
        limitMs: endMs - clock.now(),
      });
      if (report === undefined) continue;
      reports.push(report);
      for (const { seed, message } of report.failures) {
        printed += 1;
        if (printed <= PRINTED_MAX) print(`${world} seed ${seed}: ${message}`);
      }
    }
  };
  await Promise.all(Array.from({ length: jobs }, work));
  const report = mergeReports(world, reports);
  print(summaryOf(report, clock.now() - startMs));
  for (const [name, lives] of [...report.counts].sort(byName)) {
    print(`  in ${lives} lives: ${name}`);
  }
  return report;
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
