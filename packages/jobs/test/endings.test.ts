import { BlockError } from "@blocklayer/errors";
import type { JobOptions } from "@blocklayer/jobs";
import { describe, expect, it } from "vitest";
import { bench, MirrorLikeDriver, ScriptedDriver, scripted, settle } from "./scripted-driver.ts";

const MANUAL: Partial<JobOptions> = { autoFinalize: false, autoDismiss: false };
const EIO = new BlockError("EIO", "Input/output error");

const words = (text: string): string[] => text.split(", ");

describe("cancelling", () => {
  it("softly a job whose work has ended is ignored by a driver that has a softer way", async () => {
    const { manager } = bench();
    const { job, driver } = scripted(manager, "j", MANUAL, new MirrorLikeDriver());
    job.start();
    driver.ready();
    await settle();
    driver.finish();
    await settle();
    job.cancel();
    await settle();
    expect([job.status, job.cancelRequested]).toEqual(["pending", false]);
  });

  it("aborts the driver's signal when by force, with ECANCELED as reason, and not softly", async () => {
    const { manager } = bench();
    const { job, driver } = scripted(manager, "j", {}, new MirrorLikeDriver());
    job.start();
    driver.ready();
    job.drainPause();
    await settle();
    job.drainResume();
    await settle();
    job.drainPause();
    await settle();
    job.cancel();
    expect([job.signal.aborted, job.cancelRequested, job.isCancelled]).toEqual([
      false,
      true,
      false,
    ]);
    job.cancel({ force: true });
    expect([job.signal.aborted, job.isCancelled]).toEqual([true, true]);
    expect(job.signal.reason).toMatchObject({ code: "ECANCELED" });
  });

  it("does not touch a job whose transaction is committing", async () => {
    const { manager, events } = bench();
    const driver = new ScriptedDriver();
    const cleaning = Promise.withResolvers<void>();
    driver.clean = () => cleaning.promise;
    const { job } = scripted(manager, "j", {}, driver);
    job.start();
    driver.finish();
    await settle();
    expect(job.status).toBe("pending");
    job.cancel({ force: true });
    cleaning.resolve();
    await settle();
    expect(events.slice(-3)).toEqual(words("j COMPLETED, j:concluded, j:null"));
    expect(driver.calls).toEqual(["run", "commit", "free"]);
  });

  it("during a slow prepare aborts after it", async () => {
    const { manager, events } = bench();
    const driver = new ScriptedDriver();
    const preparing = Promise.withResolvers<void>();
    Object.assign(driver, { prepare: () => preparing.promise });
    const { job } = scripted(manager, "j", {}, driver);
    job.start();
    driver.finish();
    await settle();
    job.cancel({ force: true });
    await settle();
    expect([job.status, driver.calls]).toEqual(["pending", ["run"]]);
    preparing.resolve();
    await settle();
    expect(events.slice(-4)).toEqual(words("j:aborting, j CANCELLED, j:concluded, j:null"));
    expect(driver.calls).toEqual(["run", "abort", "clean", "free"]);
  });
});

describe("the outcome", () => {
  it.each([
    { thrown: EIO, code: "EIO", ret: -5, message: "Input/output error" },
    {
      thrown: new BlockError("ENOSPC", ""),
      code: "ENOSPC",
      ret: -28,
      message: "No space left on device",
    },
    { thrown: new BlockError("EPERM", "no pivot"), code: "EPERM", ret: -1, message: "no pivot" },
    { thrown: new Error("boom"), code: "EIO", ret: -5, message: "job j failed: boom" },
  ])("of a driver that throws $thrown is $code", async ({ thrown, code, ret, message }) => {
    const { manager } = bench();
    const outcomes: unknown[] = [];
    const { job, driver } = scripted(manager, "j", {
      completion: (outcome) => outcomes.push(outcome),
    });
    job.start();
    driver.finish(thrown);
    const error = await job.completed();
    expect(error).toMatchObject({ code, message });
    expect([job.ret, outcomes]).toEqual([ret, [error]]);
  });

  it("of a failed prepare is its error", async () => {
    const { manager, events } = bench();
    const driver = new ScriptedDriver();
    Object.assign(driver, { prepare: () => Promise.reject(new BlockError("EBUSY", "late")) });
    const { job } = scripted(manager, "j", {}, driver);
    job.start();
    driver.finish();
    expect(await job.completed()).toMatchObject({ code: "EBUSY", message: "late" });
    expect(events.slice(3)).toEqual(
      words("j:pending, j:aborting, j COMPLETED (late), j:concluded, j:null"),
    );
    expect(driver.calls).toEqual(["run", "abort", "clean", "free"]);
  });

  it("of completeAndWait and finishAndWait is the job's, EBUSY when complete was refused", async () => {
    const { manager } = bench();
    const { job, driver } = scripted(manager, "j", {}, new MirrorLikeDriver());
    job.start();
    expect(await job.completeAndWait()).toMatchObject({
      code: "EBUSY",
      message: "Device or resource busy",
      cause: { code: "EPERM" },
    });
    driver.ready();
    await settle();
    expect(await job.completeAndWait()).toBeUndefined();
    const other = scripted(manager, "k");
    other.job.start();
    other.driver.finish(EIO);
    expect(await other.job.finishAndWait()).toBe(EIO);
  });
});

describe("a callback that must not fail but does", () => {
  it("is reported and changes nothing about the job", async () => {
    const { manager, events, defects } = bench();
    const driver = new ScriptedDriver();
    const fail = (what: string) => () => {
      throw new Error(what);
    };
    Object.assign(driver, {
      commit: fail("commit"),
      clean: fail("clean"),
      free: fail("free"),
      userResume: fail("userResume"),
      setSpeed: fail("setSpeed"),
    });
    const { job } = scripted(manager, "j", { completion: fail("completion") }, driver);
    manager.events.once("pending", fail("never"));
    manager.events.once("status", fail("listener"));
    job.start();
    job.pause();
    job.resume();
    job.setSpeed(1);
    driver.finish();
    await job.completed();
    expect(defects.map(String)).toEqual(
      words(
        "Error: listener, Error: userResume, Error: setSpeed, Error: commit, Error: clean, Error: completion, Error: free",
      ),
    );
    expect(events.at(-1)).toBe("j:null");
  });

  it("changes nothing when it is the driver's resume, or its word on what is in flight", async () => {
    const { manager, defects } = bench();
    const driver = new ScriptedDriver();
    const fail = (what: string) => () => {
      throw new Error(what);
    };
    Object.assign(driver, { resume: fail("resume"), drainedPoll: fail("drainedPoll") });
    const { job } = scripted(manager, "j", {}, driver);
    job.start();
    job.drainPause();
    // Nobody knows, so it counts as busy.
    expect(job.isQuiescent).toBe(false);
    await job.quiescent();
    job.drainResume();
    driver.finish();
    expect(await job.completed()).toBeUndefined();
    expect(new Set(defects.map(String))).toEqual(
      new Set(words("Error: drainedPoll, Error: resume")),
    );
  });

  it("counts as force when it is the driver's cancel, and as failure never when it is abort", async () => {
    const { manager, defects } = bench();
    const driver = new ScriptedDriver();
    const fail = () => {
      throw new Error("broken");
    };
    Object.assign(driver, { cancel: fail, abort: fail });
    const { job } = scripted(manager, "j", {}, driver);
    job.start();
    job.cancel();
    expect(await job.completed()).toMatchObject({ code: "ECANCELED" });
    expect(defects).toHaveLength(2);
  });
});

it.each(["start", "failEarly"] as const)(
  "%s of a job that is not created any more is a defect",
  async (call) => {
    const { manager } = bench();
    const { job } = scripted(manager, "j");
    job.start();
    expect(() => job[call]()).toThrow(/^a job in state 'running' can not /);
    await manager.cancelAll();
  },
);
