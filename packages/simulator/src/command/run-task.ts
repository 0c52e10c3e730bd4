import { realEnv } from "@blocklayer/env";
import { type CampaignReport, mergeReports, runCampaign } from "../campaign.ts";
import { trimmed } from "../decisions.ts";
import { smallSpaces, spaces } from "../exhaustive/all-spaces.ts";
import { explore } from "../exhaustive.ts";
import { NoveltySearch } from "../novelty.ts";
import { findWorld } from "../worlds/all-worlds.ts";
import type { FailedLife, Task, TaskResult } from "./tasks.ts";

/** Seeds between two looks at the clock. */
const SEEDS_AT_ONCE = 20;
/** Failures of one search that are worth telling. */
const FAILURES_MAX = 20;

const { clock, random } = realEnv();
/** Live as long as the process: what was found once is built on. */
const searches = new Map<string, NoveltySearch>();

/** Does what a worker process is asked for, in this process. */
export function runTask(task: Task): Promise<TaskResult> {
  switch (task.kind) {
    case "seeds":
      return runSeeds(task);
    case "novelty":
      return searchNovelty(task);
    case "exhaustive":
      return exploreSpace(task);
  }
}

async function runSeeds(task: Task & { kind: "seeds" }): Promise<TaskResult> {
  const world = findWorld(task.world);
  const end = clock.now() + task.limitMs;
  const reports: CampaignReport[] = [];
  for (let done = 0; done < task.seeds && clock.now() < end; done += SEEDS_AT_ONCE) {
    const seeds = Math.min(SEEDS_AT_ONCE, task.seeds - done);
    reports.push(await runCampaign(world, { from: task.from + done, seeds, now: clock.now }));
  }
  const report = mergeReports(task.world, reports);
  return { lives: report.seeds, events: report.events, failures: report.failures, report };
}

async function searchNovelty({ world, limitMs }: Task & { kind: "novelty" }): Promise<TaskResult> {
  const search = searches.get(world) ?? new NoveltySearch(findWorld(world), random);
  searches.set(world, search);
  const end = clock.now() + limitMs;
  const failures: FailedLife[] = [];
  let [lives, events] = [0, 0];
  while (clock.now() < end && failures.length < FAILURES_MAX) {
    const outcome = await search.step();
    lives += 1;
    events += outcome.events;
    if (outcome.failure === undefined) continue;
    const { message } = outcome.failure;
    failures.push({ world, decisions: trimmed(outcome.decisions), message });
  }
  return { lives, events, failures, kept: search.kept, features: search.features };
}

async function exploreSpace(task: Task & { kind: "exhaustive" }): Promise<TaskResult> {
  const space = [...smallSpaces, ...spaces].find(({ name }) => name === task.space);
  if (space === undefined) throw new RangeError(`there is no space '${task.space}'`);
  const { runsMax } = task;
  const report = await explore(space, { runsMax, failuresMax: FAILURES_MAX });
  const failures = report.described.map((failure) => ({ world: space.name, ...failure }));
  return { lives: report.runs, events: report.events, failures };
}
