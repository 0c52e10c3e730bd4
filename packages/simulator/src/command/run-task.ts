import { realEnv } from "@blocklayer/env";
import { runCampaign } from "../campaign.ts";
import { trimmed } from "../decisions.ts";
import { findSpace } from "../exhaustive/all-spaces.ts";
import { explore } from "../exhaustive.ts";
import { NoveltySearch } from "../novelty.ts";
import { findWorld } from "../worlds/all-worlds.ts";
import type { FailedLife, SeedsTask, Task, TaskListener, TaskResult } from "./tasks.ts";

/** Seeds between two looks at the clock. */
const SEEDS_AT_ONCE = 20;
/** Failures of one search that are worth telling. */
const FAILURES_MAX = 20;

const { clock, random } = realEnv();
/** Live as long as the process: what was found once is built on. */
const searches = new Map<string, NoveltySearch>();

/** Does what a worker process is asked for, in this process. */
export function runTask(task: Task, listener: TaskListener): Promise<TaskResult> {
  switch (task.kind) {
    case "seeds":
      return runSeeds(task, listener);
    case "novelty":
      return searchNovelty(task, listener);
    case "exhaustive":
      return exploreSpace(task, listener);
  }
}

/** The reports go to the listener, so that they are not lost with the process. */
async function runSeeds(task: SeedsTask, listener: TaskListener): Promise<TaskResult> {
  const world = findWorld(task.world);
  const end = clock.now() + task.limitMs;
  for (let done = 0; done < task.seeds && clock.now() < end; done += SEEDS_AT_ONCE) {
    const seeds = Math.min(SEEDS_AT_ONCE, task.seeds - done);
    const onBegin = (seed: number): void => listener.begins(seed);
    const from = task.from + done;
    listener.lived(await runCampaign(world, { from, seeds, now: clock.now, onBegin }));
  }
  return { lives: 0, events: 0, failures: [] };
}

async function searchNovelty(
  { world, limitMs }: Task & { kind: "novelty" },
  listener: TaskListener,
): Promise<TaskResult> {
  const search = searches.get(world) ?? new NoveltySearch(findWorld(world), random);
  searches.set(world, search);
  const end = clock.now() + limitMs;
  const failures: FailedLife[] = [];
  let [lives, events] = [0, 0];
  while (clock.now() < end && failures.length < FAILURES_MAX) {
    const outcome = await search.step((source) => listener.begins(source));
    lives += 1;
    events += outcome.events;
    if (outcome.failure === undefined) continue;
    const { message } = outcome.failure;
    failures.push({ world, decisions: trimmed(outcome.decisions), message });
  }
  return { lives, events, failures, kept: search.kept, features: search.features };
}

async function exploreSpace(
  { space: name, runsMax }: Task & { kind: "exhaustive" },
  listener: TaskListener,
): Promise<TaskResult> {
  const space = findSpace(name);
  if (space === undefined) throw new RangeError(`there is no space '${name}'`);
  const onBegin = (decisions: readonly number[]): void => listener.begins(decisions);
  const report = await explore(space, { runsMax, failuresMax: FAILURES_MAX, onBegin });
  const failures = report.described.map((failure) => ({ world: space.name, ...failure }));
  return { lives: report.runs, events: report.events, failures };
}
