import { type Env, SeededScheduler } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import {
  type Job,
  type JobContext,
  type JobDriver,
  JobManager,
  type JobStatus,
} from "@blocklayer/jobs";
import fc from "fast-check";
import { expect, it } from "vitest";
import { checkTransition } from "../src/job-status.ts";

/** Copies in steps of simulated I/O, with what a real driver does in between, and keeps account. */
class CopyDriver implements JobDriver {
  readonly calls: string[] = [];
  /** Steps begun since the job was last seen to be paused by everybody's will. */
  stepsWhilePaused = 0;
  mustRest: boolean = false;
  job: JobContext | undefined;
  inFlight = 0;
  readonly #scheduler: SeededScheduler;
  readonly #steps: number;
  readonly #hasReadyPhase: boolean;
  #completing: boolean = false;

  constructor(scheduler: SeededScheduler) {
    this.#scheduler = scheduler;
    this.#steps = scheduler.random.below(6);
    this.#hasReadyPhase = scheduler.random.below(2) === 1;
  }

  async run(job: JobContext): Promise<void> {
    this.job = job;
    job.progress.setRemaining(this.#steps);
    for (let step = 0; step < this.#steps && !job.isCancelled; step += 1) {
      await this.#io(job);
      job.progress.workDone(1);
      if (this.#chance(8)) throw new BlockError("EIO", "Input/output error");
      if (this.#chance(3)) await job.sleep(this.#scheduler.random.below(5));
      else await job.pausePoint();
    }
    if (!this.#hasReadyPhase || job.isCancelled) return;
    job.setReady();
    while (!this.#completing && !job.cancelRequested) await job.yield();
  }

  async #io(job: JobContext): Promise<void> {
    if (this.mustRest && !job.isCancelled) this.stepsWhilePaused += 1;
    this.inFlight += 1;
    await this.#scheduler.turn("io");
    this.inFlight -= 1;
  }

  #chance(of: number): boolean {
    return this.#scheduler.random.below(of) === 0;
  }

  async pause(): Promise<void> {
    this.calls.push("pause");
    if (this.#chance(3)) await this.#scheduler.turn("quiesce");
  }

  resume(): void {
    this.calls.push("resume");
  }

  complete(): void {
    this.#completing = true;
    this.job?.kick();
  }

  cancel(force: boolean): boolean {
    return force || this.job?.status !== "ready";
  }

  async prepare(): Promise<void> {
    this.calls.push("prepare");
    await this.#scheduler.turn("prepare");
    if (this.#chance(6)) throw new BlockError("EPERM", "no pivot");
  }

  commit(): void {
    this.calls.push("commit");
  }

  abort(): void {
    this.calls.push("abort");
  }

  async clean(): Promise<void> {
    this.calls.push("clean");
    await this.#scheduler.turn("clean");
  }

  free(): void {
    this.calls.push("free");
  }
}

interface Member {
  readonly job: Job;
  readonly driver: CopyDriver;
  readonly group: number;
  readonly events: string[];
  drains: number;
}

/** Counts sleepers, so that one left behind shows. */
function countingEnv(env: Env): { env: Env; sleeping: () => number } {
  let sleeping = 0;
  const clock: Env["clock"] = {
    now: () => env.clock.now(),
    sleep: async (delayMs, signal) => {
      sleeping += 1;
      try {
        await env.clock.sleep(delayMs, signal);
      } finally {
        sleeping -= 1;
      }
    },
  };
  return { env: { ...env, clock }, sleeping: () => sleeping };
}

function populate(scheduler: SeededScheduler, manager: JobManager): Member[] {
  const { random } = scheduler;
  const groups = [manager.transaction(), manager.transaction()];
  const members: Member[] = [];
  for (let index = 0; index < 1 + random.below(4); index += 1) {
    const group = random.below(3);
    const transaction = groups[group];
    const driver = new CopyDriver(scheduler);
    const job = manager.create({
      id: `j${index}`,
      type: "copy",
      kind: "block",
      driver,
      autoFinalize: random.below(3) > 0,
      autoDismiss: random.below(2) > 0,
      ...(transaction === undefined ? {} : { transaction }),
    });
    members.push({ job, driver, group, events: ["created"], drains: 0 });
  }
  return members;
}

function record(manager: JobManager, members: readonly Member[]): void {
  const tell = (id: string, event: string): void =>
    void members.find(({ job }) => job.id === id)?.events.push(event);
  manager.events.on("status", ({ id, status }) => tell(id, status));
  manager.events.on("ready", ({ device }) => tell(device, "READY"));
  manager.events.on("pending", ({ id }) => tell(id, "PENDING"));
  manager.events.on("completed", ({ device }) => tell(device, "COMPLETED"));
  manager.events.on("cancelled", ({ device }) => tell(device, "CANCELLED"));
}

/** Asks for something; what may be refused is refused with a BlockError and nothing else. */
async function ask(scheduler: SeededScheduler, member: Member): Promise<void> {
  const { job, driver } = member;
  const choice = scheduler.random.below(10);
  try {
    if (choice === 0) job.pause();
    else if (choice === 1) job.resume();
    else if (choice === 2) await job.complete();
    else if (choice === 3 && scheduler.random.below(3) === 0) job.cancel();
    else if (choice === 4 && scheduler.random.below(3) === 0) job.cancel({ force: true });
    else if (choice === 5) await job.finalize();
    else if (choice === 6) job.dismiss();
    else if (choice === 7) job.setSpeed(scheduler.random.below(100));
    else if (choice === 8) await drain(scheduler, member);
    else job.kick();
  } catch (error) {
    expect(error).toBeInstanceOf(BlockError);
  }
  driver.mustRest = job.pauseCount > 0;
  if (!driver.mustRest) driver.stepsWhilePaused = 0;
}

/** A drained section: once quiescent, nothing is in flight until it ends. */
async function drain(scheduler: SeededScheduler, { job, driver }: Member): Promise<void> {
  job.drainPause();
  await job.quiescent();
  expect(driver.inFlight).toBe(0);
  await scheduler.turn("drained");
  expect(job.isCancelled ? 0 : driver.inFlight).toBe(0);
  job.drainResume();
}

function checkEvents({ job, driver, events }: Member): void {
  const statuses = events.filter((event) => event === event.toLowerCase()) as JobStatus[];
  for (const [index, status] of statuses.entries()) {
    const next = statuses[index + 1];
    if (next !== undefined) checkTransition(status, next);
  }
  const ends = events.filter((event) => event === "COMPLETED" || event === "CANCELLED");
  expect(ends).toEqual(job.isStarted ? [job.isCancelled ? "CANCELLED" : "COMPLETED"] : []);
  expect(events.slice(job.isStarted ? -3 : -2)).toEqual([...ends, "concluded", "null"]);
  const count = (call: string): number => driver.calls.filter((name) => name === call).length;
  expect(count("commit") + count("abort")).toBe(1);
  expect(count("commit")).toBe(job.error === undefined ? 1 : 0);
  expect([count("clean"), count("free")]).toEqual([1, 1]);
  expect(count("pause")).toBe(count("resume"));
  expect(count("prepare")).toBeLessThanOrEqual(1);
  if (job.error === undefined) expect(job.progress.current).toBe(job.progress.total);
}

async function play(seed: number): Promise<void> {
  const scheduler = new SeededScheduler({ seed });
  const { env, sleeping } = countingEnv(scheduler.env);
  const defects: unknown[] = [];
  let members: Member[] = [];
  let outcomes = 0;
  await scheduler.run(async () => {
    const manager = new JobManager({ env, reportDefect: (error) => defects.push(error) });
    members = populate(scheduler, manager);
    record(manager, members);
    const watches = members.map(async ({ job }) => {
      await job.completed();
      outcomes += 1;
    });
    for (const { job } of members) if (scheduler.random.below(8) > 0) job.start();
    const users = members.map(async (member) => {
      for (let count = 0; count < 12; count += 1) {
        await scheduler.turn("user", scheduler.random.below(4));
        await ask(scheduler, member);
        // A pause lets the step that is under way finish, and one that was just begun by a wake-up.
        expect(member.driver.stepsWhilePaused).toBeLessThanOrEqual(1);
      }
    });
    const shutdown = scheduler.turn("shutdown", 40).then(() => manager.cancelAll());
    await Promise.all([...users, shutdown]);
    await Promise.all(watches);
    expect(manager.list()).toEqual([]);
  });
  expect(sleeping()).toBe(0);
  expect(defects).toEqual([]);
  expect(outcomes).toBe(members.length);
  for (const member of members) {
    expect(member.job.status).toBe("null");
    checkEvents(member);
  }
  for (const group of [0, 1]) {
    const ends = members
      .filter((member) => member.group === group)
      .map(({ driver }) => driver.calls.includes("commit"));
    expect(new Set(ends).size).toBeLessThanOrEqual(1);
  }
}

it("any interleaving of users, completions and failures ends every job exactly once, all or none", async () => {
  await fc.assert(fc.asyncProperty(fc.integer({ min: 0, max: 2 ** 31 - 1 }), play), {
    numRuns: 200,
  });
});
