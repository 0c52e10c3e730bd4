import { manualEnv } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import { type Job, JobManager } from "@blocklayer/jobs";
import { describe, expect, it } from "vitest";
import {
  ACTIONS,
  type Action,
  answerOf,
  apply,
  cloneModel,
  type Model,
  type ModelJob,
  newModel,
} from "./job-model.ts";
import { MirrorLikeDriver } from "./scripted-driver.ts";

interface Step {
  readonly index: number;
  readonly action: Action;
}

/** More promise jobs than any action sets off. */
const MICROTASKS = 60;

async function settleMicrotasks(): Promise<void> {
  for (let count = 0; count < MICROTASKS; count += 1) await null;
}

/** The real jobs, to be compared with a model. */
class World {
  readonly jobs: Job[] = [];
  readonly events = new Map<string, string[]>();
  readonly #drivers: MirrorLikeDriver[] = [];
  readonly #defects: unknown[] = [];

  constructor(ids: readonly string[], auto: boolean) {
    const manager = new JobManager({
      env: manualEnv(),
      reportDefect: (error) => this.#defects.push(error),
    });
    const tell = (id: string, event: string): void => void this.events.get(id)?.push(event);
    manager.events.on("status", ({ id, status }) => tell(id, status));
    manager.events.on("ready", ({ device }) => tell(device, "READY"));
    manager.events.on("pending", ({ id }) => tell(id, "PENDING"));
    manager.events.on("cancelled", ({ device }) => tell(device, "CANCELLED"));
    manager.events.on("completed", ({ device, error }) =>
      tell(device, error === undefined ? "COMPLETED" : `COMPLETED ${error}`),
    );
    const transaction = manager.transaction();
    for (const id of ids) {
      this.events.set(id, []);
      const driver = new MirrorLikeDriver();
      this.#drivers.unshift(driver);
      this.jobs.unshift(
        manager.create({
          id,
          type: "test",
          kind: "block",
          driver,
          transaction,
          autoFinalize: auto,
          autoDismiss: auto,
        }),
      );
    }
  }

  async act({ index, action }: Step): Promise<void> {
    const job = this.jobs[index];
    const driver = this.#drivers[index];
    if (job === undefined || driver === undefined) throw new Error(`no job ${index}`);
    if (action === "drain") job.drainPause();
    else if (action === "undrain") job.drainResume();
    else if (action === "ready") driver.ready();
    else if (action === "finish") driver.finish();
    else if (action === "fail") driver.finish(new BlockError("EIO", "EIO"));
    else if (action === "kill") job.cancel({ force: true });
    else if (action === "set-speed") job.setSpeed(1);
    else await job[action]();
  }

  /** What is seen, in the words of the model. */
  view(): unknown[] {
    return this.jobs.map((job, index) => [
      job.status,
      this.events.get(job.id ?? ""),
      job.userPaused,
      job.error?.code ?? "",
      ["commit", "abort", "clean", "free"].map(
        (call) => this.#drivers[index]?.calls.filter((name) => name === call).length,
      ),
      this.#defects,
    ]);
  }
}

function viewOf(model: Model): unknown[] {
  return model.jobs.map((job) => [
    job.status,
    job.events,
    job.userPaused,
    job.code,
    endOf(job),
    [],
  ]);
}

function endOf({ status, code }: ModelJob): number[] {
  const over = status === "concluded" || status === "null" ? 1 : 0;
  return [code === "" ? over : 0, code === "" ? 0 : over, over, status === "null" ? 1 : 0];
}

async function answer(call: Promise<void>): Promise<string> {
  try {
    await call;
    return "done";
  } catch (error) {
    if (error instanceof BlockError) return "refused";
    throw error;
  }
}

/** Runs `path` in a new world, compares what is seen, and asks for all that must be refused or change nothing. */
async function check(ids: readonly string[], model: Model, path: readonly Step[]): Promise<void> {
  const world = new World(ids, model.autoFinalize);
  for (const step of path) {
    await world.act(step);
    await settleMicrotasks();
  }
  const expected = JSON.stringify(viewOf(model));
  const title = path.map(({ index, action }) => `${index}:${action}`).join(" ");
  if (JSON.stringify(world.view()) !== expected) {
    expect({ title, seen: world.view() }).toEqual({ title, seen: viewOf(model) });
  }
  for (const [index, job] of model.jobs.entries()) {
    for (const action of ACTIONS) {
      const allowed = answerOf(job, action);
      if (allowed === "impossible" || (allowed === "done" && action !== "set-speed")) continue;
      const answered = await answer(world.act({ index, action }));
      if (answered !== allowed) {
        expect({ title, index, action, answered }).toEqual({
          title,
          index,
          action,
          answered: allowed,
        });
      }
    }
  }
  if (JSON.stringify(world.view()) !== expected) {
    expect({ title: `${title}, refused`, seen: world.view() }).toEqual({
      title: `${title}, refused`,
      seen: viewOf(model),
    });
  }
}

/**
 * Walks every sequence of accepted actions. One that is refused, or `set-speed`, leaves everything as it was
 * (checked above), so what follows it is what follows without it.
 */
async function walk(
  ids: readonly string[],
  model: Model,
  path: readonly Step[],
  depth: number,
): Promise<number> {
  await check(ids, model, path);
  if (depth === 0) return 1;
  let count = 1;
  for (const [index, job] of model.jobs.entries()) {
    for (const action of ACTIONS) {
      if (action === "set-speed" || answerOf(job, action) !== "done") continue;
      const next = cloneModel(model);
      const target = next.jobs[index];
      if (target === undefined) continue;
      apply(next, target, action);
      count += await walk(ids, next, [...path, { index, action }], depth - 1);
    }
  }
  return count;
}

const START: readonly Step[] = [
  { index: 0, action: "start" },
  { index: 1, action: "start" },
];

function modelAfter(ids: readonly string[], auto: boolean, path: readonly Step[]): Model {
  const model = newModel(ids, auto);
  for (const { index, action } of path) {
    const job = model.jobs[index];
    if (job !== undefined) apply(model, job, action);
  }
  return model;
}

describe("every sequence of actions does what the model does", () => {
  it.each([
    { auto: false, ids: ["a"], depth: 6, prefix: [] },
    { auto: true, ids: ["a"], depth: 6, prefix: [] },
    { auto: false, ids: ["a", "b"], depth: 4, prefix: [] },
    { auto: true, ids: ["a", "b"], depth: 4, prefix: [] },
    { auto: false, ids: ["a", "b"], depth: 4, prefix: START },
  ])(
    "jobs $ids, automatic end: $auto, up to $depth after $prefix.length",
    async ({ auto, ids, depth, prefix }) => {
      const count = await walk(ids, modelAfter(ids, auto, prefix), prefix, depth);
      expect(count).toBeGreaterThan(1000);
    },
    60_000,
  );
});
