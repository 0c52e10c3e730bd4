import { BlockError } from "@blocklayer/errors";
import type { Job, JobOptions } from "@blocklayer/jobs";
import { describe, expect, it } from "vitest";
import { bench, MirrorLikeDriver, ScriptedDriver, scripted, settle } from "./scripted-driver.ts";

const MANUAL: Partial<JobOptions> = { autoFinalize: false, autoDismiss: false };
const EIO = new BlockError("EIO", "Input/output error");

const words = (text: string): string[] => text.split(", ");

describe("the canonical sequence of", () => {
  it("a simple success", async () => {
    const { manager, events } = bench();
    const { job, driver } = scripted(manager, "j");
    job.start();
    driver.finish();
    await settle();
    expect(events).toEqual(
      words("j:created, j:running, j:waiting, j:pending, j COMPLETED, j:concluded, j:null"),
    );
    expect(driver.calls).toEqual(["run", "commit", "clean", "free"]);
  });

  it("a job with a ready phase, completed", async () => {
    const { manager, events } = bench();
    const { job, driver } = scripted(manager, "j", {}, new MirrorLikeDriver());
    job.start();
    driver.ready();
    await settle();
    await job.complete();
    await settle();
    expect(events.slice(1)).toEqual(
      words("j:running, j:ready, j READY, j:waiting, j:pending, j COMPLETED, j:concluded, j:null"),
    );
  });

  it("a job that is started inside a drain", async () => {
    const { manager, events } = bench();
    const { job, driver } = scripted(manager, "j");
    job.drainPause();
    job.start();
    expect(events).toEqual(words("j:created, j:running, j:paused"));
    await settle();
    expect(driver.calls).toEqual([]);
    job.drainResume();
    driver.finish();
    await settle();
    expect(events.slice(3)).toEqual(
      words("j:running, j:waiting, j:pending, j COMPLETED, j:concluded, j:null"),
    );
  });

  it("manual finalize and dismiss", async () => {
    const { manager, events } = bench();
    const { job, driver } = scripted(manager, "j", MANUAL);
    job.start();
    driver.finish();
    await settle();
    expect(events.splice(0)).toEqual(
      words("j:created, j:running, j:waiting, j:pending, j PENDING"),
    );
    await job.finalize();
    expect(events.splice(0)).toEqual(words("j COMPLETED, j:concluded"));
    expect(manager.list()).toEqual([job]);
    job.dismiss();
    expect(events).toEqual(["j:null"]);
    expect(manager.list()).toEqual([]);
  });

  it("an I/O error that is reported", async () => {
    const { manager, events } = bench();
    const { job, driver } = scripted(manager, "j");
    job.start();
    await settle();
    driver.job?.announceError("read", "report");
    driver.finish(EIO);
    await settle();
    expect(events).toEqual(
      words(
        "j:created, j:running, j ERROR read report, j:aborting, j COMPLETED (Input/output error), j:concluded, j:null",
      ),
    );
    expect(driver.calls).toEqual(["run", "abort", "clean", "free"]);
  });

  it("a forced cancel", async () => {
    const { manager, events } = bench();
    const { job } = scripted(manager, "j");
    job.start();
    job.cancel({ force: true });
    await settle();
    expect(events.slice(2)).toEqual(words("j:aborting, j CANCELLED, j:concluded, j:null"));
  });

  it("a cancel while paused by the user", async () => {
    const { manager, events } = bench();
    const { job } = scripted(manager, "j");
    job.start();
    job.pause();
    await settle();
    job.cancel({ force: true });
    await settle();
    expect(events.slice(1)).toEqual(
      words("j:running, j:paused, j:running, j:aborting, j CANCELLED, j:concluded, j:null"),
    );
  });

  it("a ready job at shutdown with a drain", async () => {
    const { manager, events } = bench();
    const { job, driver } = scripted(manager, "j", {}, new MirrorLikeDriver());
    job.start();
    driver.ready();
    await settle();
    job.drainPause();
    await settle();
    await manager.cancelAll();
    expect(events.slice(2)).toEqual(
      words("j:ready, j READY, j:standby, j:ready, j:aborting, j CANCELLED, j:concluded, j:null"),
    );
  });

  it("a creation that fails after the job existed", () => {
    const { manager, events } = bench();
    const { job, driver } = scripted(manager, "j");
    job.failEarly();
    expect(events).toEqual(words("j:created, j:null"));
    expect(driver.calls).toEqual(["free"]);
    expect(manager.list()).toEqual([]);
  });

  it("a ready job that is cancelled softly", async () => {
    const { manager, events } = bench();
    const { job, driver } = scripted(manager, "j", {}, new MirrorLikeDriver());
    job.start();
    driver.ready();
    await settle();
    job.cancel();
    await settle();
    expect(events.slice(4)).toEqual(
      words("j:waiting, j:pending, j COMPLETED, j:concluded, j:null"),
    );
    expect(job.ret).toBe(0);
  });

  it("a plain job sends nothing but its status", async () => {
    const { manager, events } = bench();
    const { job, driver } = scripted(manager, "j", { kind: "plain", autoFinalize: false });
    job.start();
    await settle();
    driver.job?.announceError("read", "report");
    driver.ready();
    driver.finish();
    await settle();
    await job.finalize();
    expect(events.every((event) => event.startsWith("j:"))).toBe(true);
  });

  it("an internal job is silence", async () => {
    const { manager, events } = bench();
    const driver = new ScriptedDriver();
    const job = manager.create({ type: "test", kind: "block", driver });
    job.start();
    driver.finish();
    expect(await job.completed()).toBeUndefined();
    expect([events, manager.list()]).toEqual([[], []]);
  });
});

describe("the last events carry", () => {
  it("type, device, progress and speed", async () => {
    const { manager } = bench();
    const seen: unknown[] = [];
    manager.events.on("ready", (event) => seen.push(event));
    manager.events.on("completed", (event) => seen.push(event));
    manager.events.on("pending", (event) => seen.push(event));
    const { job, driver } = scripted(manager, "j", { speed: 4096, autoFinalize: false });
    job.start();
    driver.ready();
    await settle();
    job.progress.setRemaining(10);
    job.progress.workDone(4);
    driver.finish(EIO);
    await settle();
    expect(seen).toEqual([
      { type: "test", device: "j", len: 0, offset: 0, speed: 4096 },
      { type: "test", device: "j", len: 10, offset: 4, speed: 4096, error: EIO.message },
    ]);
  });
});

describe("cancelAndWait by force of a job with manual finalize and dismiss that is", () => {
  const prepare = {
    created: (_: Job) => {},
    running: (job: Job) => job.start(),
    paused: async (job: Job) => {
      job.start();
      job.pause();
      await settle();
    },
    ready: async (job: Job, driver: ScriptedDriver) => {
      job.start();
      driver.ready();
      await settle();
    },
    standby: async (job: Job, driver: ScriptedDriver) => {
      await prepare.ready(job, driver);
      job.pause();
      await settle();
    },
    pending: async (job: Job, driver: ScriptedDriver) => {
      job.start();
      driver.finish();
      await settle();
    },
  };

  it.each([
    ["created", "null"],
    ["running", "concluded"],
    ["paused", "concluded"],
    ["ready", "concluded"],
    ["standby", "concluded"],
    ["pending", "concluded"],
  ] as const)("%s ends %s", async (before, after) => {
    const { manager, events } = bench();
    const { job, driver } = scripted(manager, "j", MANUAL, new MirrorLikeDriver());
    await prepare[before](job, driver);
    expect(job.status).toBe(before);
    expect(await job.cancelAndWait({ force: true })).toMatchObject({
      code: "ECANCELED",
      message: "Operation canceled",
      context: { job: "j" },
    });
    expect(job.status).toBe(after);
    expect(driver.calls.filter((call) => call !== "run").slice(0, 2)).toEqual(["abort", "clean"]);
    if (after === "concluded") job.dismiss();
    expect(events.at(-1)).toBe("j:null");
    expect(events.filter((event) => event === "j CANCELLED")).toHaveLength(
      before === "created" ? 0 : 1,
    );
  });

  it("concluded dismisses it", async () => {
    const { manager, events } = bench();
    const { job, driver } = scripted(manager, "j", MANUAL);
    job.start();
    driver.finish();
    await settle();
    await job.finalize();
    expect(await job.cancelAndWait({ force: true })).toBeUndefined();
    expect(events.slice(-2)).toEqual(words("j:concluded, j:null"));
    expect(await job.cancelAndWait()).toBeUndefined();
  });

  it("in standby by a drain that has ended accepts complete before it has resumed", async () => {
    const { manager, events } = bench();
    const { job, driver } = scripted(manager, "j", MANUAL, new MirrorLikeDriver());
    await prepare.ready(job, driver);
    job.drainPause();
    await settle();
    job.drainResume();
    expect(job.status).toBe("standby");
    await job.complete();
    await settle();
    expect(events.slice(-6)).toEqual(
      words("j READY, j:standby, j:ready, j:waiting, j:pending, j PENDING"),
    );
    await job.finalize();
    job.dismiss();
    expect(events.slice(-3)).toEqual(words("j COMPLETED, j:concluded, j:null"));
  });
});

it("verbs may be called out of the events that make them possible", async () => {
  const { manager, events, defects } = bench();
  const group = manager.transaction();
  const a = scripted(manager, "a", { ...MANUAL, transaction: group });
  const b = scripted(manager, "b", { ...MANUAL, transaction: group });
  let finalized: Promise<void> | undefined;
  manager.events.once("pending", ({ id }) => {
    finalized = manager.get(id).finalize();
  });
  manager.events.on("status", ({ id, status }) => {
    if (status === "concluded") manager.get(id).dismiss();
    if (status === "paused") manager.get(id).resume();
  });
  a.job.start();
  b.job.start();
  a.job.pause();
  await settle();
  a.driver.finish();
  b.driver.finish();
  await Promise.all([a.job.completed(), b.job.completed()]);
  await finalized;
  expect(events.slice(2)).toEqual(
    words(
      "a:running, b:running, a:paused, a:running, a:waiting, b:waiting, b:pending, b PENDING, a:pending, a PENDING, b COMPLETED, b:concluded, b:null, a COMPLETED, a:concluded, a:null",
    ),
  );
  expect(defects).toEqual([]);
});

it("a cancel out of the pending event of one member aborts all", async () => {
  const { manager, defects } = bench();
  const group = manager.transaction();
  const a = scripted(manager, "a", { autoFinalize: false, transaction: group });
  const b = scripted(manager, "b", { autoFinalize: false, transaction: group });
  manager.events.once("pending", ({ id }) => manager.get(id).cancel());
  a.job.start();
  b.job.start();
  a.driver.finish();
  b.driver.finish();
  const outcomes = await Promise.all([a.job.completed(), b.job.completed()]);
  expect(outcomes.map((error) => error?.code)).toEqual(["ECANCELED", "ECANCELED"]);
  expect(defects).toEqual([]);
});
