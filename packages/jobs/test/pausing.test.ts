import { type JobContext, JobManager } from "@blocklayer/jobs";
import { describe, expect, it } from "vitest";
import { bench, ScriptedDriver, scripted, settle } from "./scripted-driver.ts";

/** A driver whose every step is one call of a function of the test. */
class LoopDriver extends ScriptedDriver {
  steps = 0;
  readonly #step: (job: JobContext) => Promise<void>;

  constructor(step: (job: JobContext) => Promise<void>) {
    super();
    this.#step = step;
  }

  override async run(job: JobContext): Promise<void> {
    this.job = job;
    while (!this.isDone && !job.isCancelled) {
      this.steps += 1;
      await this.#step(job);
    }
  }
}

function sleeper(delayMs: number) {
  const stage = bench();
  const driver = new LoopDriver((context) => context.sleep(delayMs));
  const { job } = scripted(stage.manager, "j", {}, driver);
  job.start();
  return { ...stage, job, driver };
}

describe("a job that sleeps", () => {
  it("wakes at its time", async () => {
    const { env, driver, manager } = sleeper(10);
    await env.clock.advance(35);
    expect(driver.steps).toBe(4);
    await manager.cancelAll();
  });

  it("wakes early when kicked, and the timer is gone", async () => {
    const { env, job, driver, manager } = sleeper(1000);
    await settle();
    expect([job.busy, env.clock.sleeping]).toEqual([false, 1]);
    job.kick();
    job.kick();
    expect([job.busy, env.clock.sleeping]).toEqual([true, 0]);
    await settle();
    expect([driver.steps, env.clock.sleeping]).toEqual([2, 1]);
    await manager.cancelAll();
    expect(env.clock.sleeping).toBe(0);
  });

  it("is paused without waiting for its time", async () => {
    const { env, job, events, manager } = sleeper(1000);
    await settle();
    job.pause();
    await settle();
    expect([events.at(-1), job.paused, env.clock.sleeping]).toEqual(["j:paused", true, 0]);
    await manager.cancelAll();
  });

  it("does not rest when cancelled by force", async () => {
    const { job, driver, env, manager } = sleeper(1000);
    await settle();
    job.cancel({ force: true });
    await job.completed();
    expect([driver.steps, env.clock.sleeping, manager.list()]).toEqual([1, 0, []]);
  });

  it("sleeps shortly while somebody waits for its end", async () => {
    const { env, manager } = bench();
    const driver = new LoopDriver(async (context) => {
      driver.isDone = driver.steps === 5;
      await context.sleep(60_000);
    });
    const { job } = scripted(manager, "j", {}, driver);
    job.start();
    await settle();
    const outcome = job.finishAndWait();
    await env.clock.advance(0);
    expect([await outcome, driver.steps, env.clock.now()]).toEqual([undefined, 5, 0]);
  });

  it("refuses a delay that is not a number", async () => {
    const { job } = sleeper(Number.NaN);
    expect(await job.completed()).toMatchObject({
      code: "EIO",
      message: "job j failed: delay of NaN ms is not a number",
      cause: new RangeError("delay of NaN ms is not a number"),
    });
  });
});

describe("a clock that fails", () => {
  it("is reported", async () => {
    const stage = bench();
    const env = {
      ...stage.env,
      clock: { now: () => 0, sleep: () => Promise.reject(new Error("clock")) },
    };
    const defects: unknown[] = [];
    const manager = new JobManager({ env, reportDefect: (error) => defects.push(error) });
    const { job } = scripted(manager, "j", {}, new LoopDriver((context) => context.sleep(5)));
    job.start();
    await settle();
    expect(defects).toEqual([new Error("clock")]);
    await manager.cancelAll();
  });
});

describe("pauses", () => {
  it("are counted: the user's resume does not end a drain", async () => {
    const { manager, events } = bench();
    const { job } = scripted(manager, "j");
    job.start();
    job.drainPause();
    job.drainPause();
    await settle();
    job.pause();
    job.resume();
    job.drainResume();
    await settle();
    expect([events.at(-1), job.pauseCount]).toEqual(["j:paused", 1]);
    job.drainResume();
    await settle();
    expect(events.at(-1)).toBe("j:running");
    expect(() => job.drainResume()).toThrow("a job was resumed more often than paused");
    await manager.cancelAll();
  });

  it("before the start make it begin paused", async () => {
    const { manager, events } = bench();
    const { job, driver } = scripted(manager, "j");
    job.pause();
    job.start();
    await settle();
    expect([events.at(-1), driver.calls]).toEqual(["j:paused", []]);
    job.resume();
    await settle();
    expect(driver.calls).toEqual(["run"]);
    await manager.cancelAll();
  });

  it("that are over before the job noticed leave no trace", async () => {
    const { manager, events } = bench();
    const { job } = scripted(manager, "j");
    job.start();
    await settle();
    events.length = 0;
    job.drainPause();
    job.drainResume();
    await settle();
    expect([events, job.busy]).toEqual([[], false]);
    await manager.cancelAll();
  });

  it("that are over as soon as the status tells of them let the job go on", async () => {
    const { manager, events } = bench();
    const { job, driver } = scripted(manager, "j");
    manager.events.on("status", ({ status }) => {
      if (status === "paused") job.drainResume();
    });
    job.drainPause();
    job.start();
    await settle();
    expect([events.slice(2), driver.calls]).toEqual([["j:paused", "j:running"], ["run"]]);
    await manager.cancelAll();
  });

  it("are not ended by a kick", async () => {
    const { manager } = bench();
    const { job } = scripted(manager, "j");
    job.start();
    await settle();
    job.drainPause();
    await settle();
    job.kick();
    await settle();
    expect([job.status, job.isQuiescent]).toEqual(["paused", true]);
    await manager.cancelAll();
  });

  it("call the driver's pause and resume, and check again after a pause that took its time", async () => {
    const { manager, events } = bench();
    const driver = new ScriptedDriver();
    let quiesced = Promise.withResolvers<void>();
    Object.assign(driver, {
      pause: () => {
        driver.calls.push("pause");
        return quiesced.promise;
      },
      resume: () => driver.calls.push("resume"),
    });
    const { job } = scripted(manager, "j", {}, driver);
    job.start();
    await settle();
    job.drainPause();
    await settle();
    expect([job.isQuiescent, job.status]).toEqual([false, "running"]);
    job.drainResume();
    quiesced.resolve();
    await settle();
    expect([driver.calls, events.at(-1)]).toEqual([["run", "pause", "resume"], "j:running"]);
    quiesced = Promise.withResolvers();
    quiesced.resolve();
    job.drainPause();
    await settle();
    job.drainResume();
    await settle();
    expect(events.slice(-2)).toEqual(["j:paused", "j:running"]);
    expect(driver.calls.slice(3)).toEqual(["pause", "resume"]);
    await manager.cancelAll();
  });

  it("by an error policy are the user's to end, once", async () => {
    const { manager, events } = bench();
    const driver = new ScriptedDriver();
    Object.assign(driver, { userResume: () => driver.calls.push("userResume") });
    const { job } = scripted(manager, "j", {}, driver);
    job.start();
    await settle();
    driver.job?.stopForUser();
    driver.job?.stopForUser();
    await settle();
    expect([job.userPaused, job.pauseCount, events.at(-1)]).toEqual([true, 1, "j:paused"]);
    job.resume();
    await settle();
    expect([driver.calls, events.at(-1)]).toEqual([["run", "userResume"], "j:running"]);
    await manager.cancelAll();
  });
});

describe("a job is quiescent", () => {
  it("when it rests, not while it works, and again when it is completed", async () => {
    const { manager } = bench();
    const io = Promise.withResolvers<void>();
    const driver = new LoopDriver(async (context) => {
      await io.promise;
      await context.pausePoint();
    });
    const { job } = scripted(manager, "j", { autoDismiss: false }, driver);
    expect(job.isQuiescent).toBe(true);
    job.start();
    job.drainPause();
    let quiescent = false;
    const waiting = job.quiescent().then(() => {
      quiescent = true;
    });
    // It was started before the drain began, so its first step is already on the way.
    await settle();
    expect([job.isQuiescent, quiescent]).toEqual([false, false]);
    io.resolve();
    await waiting;
    expect([job.status, driver.steps]).toEqual(["paused", 1]);
    job.drainResume();
    driver.isDone = true;
    await job.completed();
    expect(job.isQuiescent).toBe(true);
  });

  it("in the driver's completion, so that it may be drained there", async () => {
    const { manager } = bench();
    const driver = new ScriptedDriver();
    const { job } = scripted(manager, "j", {}, driver);
    driver.clean = async () => {
      job.drainPause();
      await job.quiescent();
      job.drainResume();
    };
    job.start();
    driver.finish();
    expect(await job.completed()).toBeUndefined();
  });

  it("by the word of a driver that has its own, asked again when told", async () => {
    const { manager } = bench();
    let inFlight = 1;
    const driver = new ScriptedDriver();
    const blocked = Promise.withResolvers<void>();
    Object.assign(driver, { drainedPoll: () => inFlight > 0, pause: () => blocked.promise });
    const { job } = scripted(manager, "j", {}, driver);
    job.start();
    await settle();
    job.drainPause();
    const waiting = job.quiescent();
    await settle();
    expect([job.busy, job.isQuiescent]).toEqual([true, false]);
    inFlight = 0;
    driver.job?.notifyIdle();
    await waiting;
    expect([job.busy, job.isQuiescent]).toEqual([true, true]);
    blocked.resolve();
    await manager.cancelAll();
  });
});

describe("speed", () => {
  it("of a job that was cancelled by whoever was told of it is nobody's business", async () => {
    const { manager, defects } = bench();
    manager.events.on("status", ({ id, status }) => {
      if (status === "created") manager.get(id).cancel({ force: true });
    });
    const { job } = scripted(manager, "j", { speed: 4096 });
    expect(job.status).toBe("aborting");
    await settle();
    expect([job.status, job.speed, defects]).toEqual(["null", 0, []]);
  });

  it.each([
    { old: 1000, speed: 2000, wakes: true },
    { old: 1000, speed: 0, wakes: true },
    { old: 1000, speed: 1000, wakes: false },
    { old: 1000, speed: 500, wakes: false },
  ])("from $old to $speed ends a sleep: $wakes", async ({ old, speed, wakes }) => {
    const { manager } = bench();
    const told: number[] = [];
    const driver = new LoopDriver((context) => context.sleep(1000));
    Object.assign(driver, { setSpeed: (value: number) => told.push(value) });
    const { job } = scripted(manager, "j", { speed: old }, driver);
    job.start();
    await settle();
    job.setSpeed(speed);
    await settle();
    expect([driver.steps, job.speed, told]).toEqual([wakes ? 2 : 1, speed, [old, speed]]);
    await manager.cancelAll();
  });

  it("does not wake a job that rests without a timer", async () => {
    const { manager } = bench();
    const driver = new LoopDriver((context) => context.yield());
    const { job } = scripted(manager, "j", {}, driver);
    job.start();
    await settle();
    job.setSpeed(1);
    await settle();
    expect(driver.steps).toBe(1);
    await manager.cancelAll();
  });

  it("holds in the long run within 1 %", async () => {
    const { env, manager } = bench();
    const driver = new LoopDriver(async (context) => {
      context.progress.workDone(65536);
      await context.sleep(context.limiter.delay(65536));
    });
    const { job } = scripted(manager, "j", { speed: 1_000_000 }, driver);
    job.start();
    await env.clock.advance(60_000);
    expect(Math.abs(job.progress.current / 60_000_000 - 1)).toBeLessThanOrEqual(0.01);
    await manager.cancelAll();
  });
});
