import { manualEnv } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import {
  acceptsVerb,
  type Job,
  JobManager,
  type JobTransaction,
  type JobVerb,
} from "@blocklayer/jobs";
import { describe, expect, it } from "vitest";
import {
  bench,
  lineOf,
  MirrorLikeDriver,
  ScriptedDriver,
  scripted,
  settle,
} from "./scripted-driver.ts";

async function failureOf(call: () => unknown): Promise<string> {
  try {
    await call();
    return "done";
  } catch (error) {
    if (error instanceof BlockError) return lineOf(error);
    throw error;
  }
}

function askTo(job: Job, verb: JobVerb): unknown {
  if (verb === "set-speed") return job.setSpeed(1);
  return job[verb]();
}

type State = "created" | "running" | "paused" | "ready" | "standby" | "pending" | "concluded";

const IN_STATE: Record<State, (job: Job, driver: ScriptedDriver) => unknown> = {
  created: () => {},
  running: (job) => job.start(),
  paused: async (job) => {
    job.drainPause();
    job.start();
    await settle();
  },
  ready: async (job, driver) => {
    job.start();
    driver.ready();
    await settle();
  },
  standby: async (job, driver) => {
    await IN_STATE.ready(job, driver);
    job.drainPause();
    await settle();
  },
  pending: async (job, driver) => {
    job.start();
    driver.finish();
    await settle();
  },
  concluded: async (job, driver) => {
    await IN_STATE.pending(job, driver);
    await job.finalize();
  },
};

describe("a job that is", () => {
  it.each((Object.keys(IN_STATE) as State[]).map((state) => [state] as const))(
    "%s refuses with EPERM what the table does not allow",
    async (state) => {
      const verbs: JobVerb[] = ["pause", "complete", "finalize", "dismiss", "set-speed", "cancel"];
      for (const verb of verbs) {
        const { manager } = bench();
        const options = { autoFinalize: false, autoDismiss: false };
        const { job, driver } = scripted(manager, "x", options, new MirrorLikeDriver());
        await IN_STATE[state](job, driver);
        expect(job.status).toBe(state);
        const expected = acceptsVerb(job.status, verb)
          ? "done"
          : `EPERM GenericError: Job 'x' in state '${state}' cannot accept command verb '${verb}'`;
        expect([verb, await failureOf(() => askTo(job, verb))]).toEqual([verb, expected]);
        await manager.cancelAll();
      }
    },
  );

  it("waiting or aborting refuses too, and tells verb and status", async () => {
    const { manager } = bench();
    const group = manager.transaction();
    const a = scripted(manager, "a", { transaction: group });
    const b = scripted(manager, "b", { transaction: group });
    a.job.start();
    b.job.start();
    a.driver.finish();
    await settle();
    await expect(a.job.finalize()).rejects.toMatchObject({
      code: "EPERM",
      message: "Job 'a' in state 'waiting' cannot accept command verb 'finalize'",
      context: { job: "a", operation: "finalize", status: "waiting" },
    });
    manager.events.once("cancelled", () => {
      expect(() => a.job.cancel()).toThrow(
        "Job 'a' in state 'aborting' cannot accept command verb 'cancel'",
      );
    });
    a.job.cancel();
    await a.job.completed();
    expect(b.job.ret).toBe(-125);
  });
});

describe("the message of", () => {
  it("a second pause", async () => {
    const { manager } = bench();
    const { job } = scripted(manager, "x");
    job.start();
    job.pause();
    expect(await failureOf(() => job.pause())).toBe("EBUSY GenericError: Job is already paused");
    await manager.cancelAll();
  });

  it.each(["running", "pending", "concluded"] as const)(
    "resume of a job that is %s and not paused",
    async (state) => {
      const { manager } = bench();
      const options = { autoFinalize: false, autoDismiss: false };
      const { job, driver } = scripted(manager, "x", options, new MirrorLikeDriver());
      await IN_STATE[state](job, driver);
      expect(await failureOf(() => job.resume())).toBe(
        "EINVAL GenericError: Can't resume a job that was not paused",
      );
      await manager.cancelAll();
    },
  );

  it("resume of a job that was paused and has ended before it noticed", async () => {
    const { manager } = bench();
    const driver = new ScriptedDriver();
    const io = Promise.withResolvers<void>();
    driver.run = () => io.promise;
    const { job } = scripted(manager, "x", { autoFinalize: false }, driver);
    job.start();
    await settle();
    job.pause();
    io.resolve();
    await settle();
    expect(await failureOf(() => job.resume())).toBe(
      "EPERM GenericError: Job 'x' in state 'pending' cannot accept command verb 'resume'",
    );
    await manager.cancelAll();
  });

  it("a soft cancel of a job that its user has paused", async () => {
    const { manager } = bench();
    const { job } = scripted(manager, "x");
    job.start();
    job.pause();
    expect(await failureOf(() => job.cancel())).toBe(
      "EBUSY GenericError: The block job for device 'x' is currently paused",
    );
    job.cancel({ force: true });
    expect(await job.completed()).toMatchObject({ code: "ECANCELED" });
  });

  it("a negative speed, which is no speed to begin with either", async () => {
    const { manager, events } = bench();
    const line = "EINVAL GenericError: Parameter 'speed' expects a non-negative value";
    const { job } = scripted(manager, "x");
    expect(await failureOf(() => job.setSpeed(-1))).toBe(line);
    expect(() => job.setSpeed(0.5)).toThrow(RangeError);
    job.failEarly();
    expect(await failureOf(() => scripted(manager, "y", { speed: -1 }))).toBe(line);
    expect(events).toEqual(["x:created", "x:null", "y:created", "y:null"]);
    expect(manager.list()).toEqual([]);
  });

  it("complete by a driver that can not, or of a job that is cancelled", async () => {
    const line = "EBUSY GenericError: The active block job 'x' cannot be completed";
    const { manager } = bench();
    const { job, driver } = scripted(manager, "x");
    await IN_STATE.ready(job, driver);
    expect(await failureOf(() => job.complete())).toBe(line);
    await manager.cancelAll();
    const other = scripted(manager, "x", {}, new MirrorLikeDriver());
    await IN_STATE.standby(other.job, other.driver);
    other.job.cancel();
    expect(await failureOf(() => other.job.complete())).toBe(line);
    await manager.cancelAll();
  });

  it("complete that the driver refuses is the driver's, and the job goes on", async () => {
    const { manager } = bench();
    const driver = new MirrorLikeDriver();
    driver.complete = () => {
      throw new BlockError("EPERM", "not now");
    };
    const { job } = scripted(manager, "x", {}, driver);
    await IN_STATE.ready(job, driver);
    expect(await failureOf(() => job.complete())).toBe("EPERM GenericError: not now");
    expect(job.status).toBe("ready");
    await manager.cancelAll();
  });
});

describe("an id", () => {
  it.each(["", " ", "1a", "_x", "-x", ".x", "#x", "a b", "ä", "a\n"])(
    "%j is invalid",
    async (id) => {
      const { manager } = bench();
      expect(await failureOf(() => scripted(manager, id))).toBe(
        `EINVAL GenericError: Invalid job ID '${id}'`,
      );
    },
  );

  it.each(["a", "Z9", "a-b.c_d"])("%j is valid", (id) => {
    expect(scripted(bench().manager, id).job.id).toBe(id);
  });

  it("is in use until its job is dismissed", async () => {
    const { manager } = bench();
    const { job, driver } = scripted(manager, "x", { autoDismiss: false });
    const line = "EEXIST GenericError: Job ID 'x' already in use";
    expect(await failureOf(() => scripted(manager, "x"))).toBe(line);
    job.start();
    driver.finish();
    await job.completed();
    expect(await failureOf(() => scripted(manager, "x"))).toBe(line);
    job.dismiss();
    expect(scripted(manager, "x").job.status).toBe("created");
  });
});

describe("looking up", () => {
  it("an unknown job fails in the words of the command family", async () => {
    const { manager } = bench();
    const { job } = scripted(manager, "plain", { kind: "plain" });
    expect(await failureOf(() => manager.get("x"))).toBe("ENOENT GenericError: Job not found");
    expect(await failureOf(() => manager.getBlockJob("x"))).toBe(
      "ENOENT DeviceNotActive: Block job 'x' not found",
    );
    expect(await failureOf(() => manager.getBlockJob("plain"))).toBe(
      "ENOENT DeviceNotActive: Block job 'plain' not found",
    );
    expect([manager.get("plain"), manager.find("x")]).toEqual([job, undefined]);
  });
});

describe("queries", () => {
  it("list jobs with an id, newest first, and errors as soon as there is one", async () => {
    const { manager } = bench();
    const a = scripted(manager, "a", { kind: "plain", autoDismiss: false });
    const b = scripted(manager, "b", { autoFinalize: false, speed: 5 });
    manager.create({ type: "hidden", driver: new ScriptedDriver() });
    a.job.start();
    a.job.progress.setRemaining(10);
    a.job.progress.workDone(3);
    a.driver.finish(new BlockError("EIO", "bad disk"));
    await settle();
    expect(manager.query()).toEqual([
      { id: "b", type: "test", status: "created", currentProgress: 0, totalProgress: 0 },
      {
        id: "a",
        type: "test",
        status: "concluded",
        currentProgress: 3,
        totalProgress: 10,
        error: "bad disk",
      },
    ]);
    expect(manager.queryBlockJobs()).toEqual([
      {
        type: "test",
        device: "b",
        len: 0,
        offset: 0,
        busy: false,
        paused: true,
        speed: 5,
        ready: false,
        status: "created",
        autoFinalize: false,
        autoDismiss: true,
      },
    ]);
    expect(manager.list()).toHaveLength(3);
    b.job.start();
    expect(manager.queryBlockJobs()[0]).toMatchObject({ busy: true, paused: false });
    await manager.cancelAll();
    expect(manager.list()).toEqual([]);
  });
});

describe("a manager", () => {
  it("takes only its own kind of transaction", () => {
    const transaction: JobTransaction = { jobs: [], isAborting: false };
    expect(() => scripted(bench().manager, "x", { transaction })).toThrow(
      new TypeError("the transaction was not made by JobManager.transaction()"),
    );
  });

  it("throws defects as uncaught exceptions unless told otherwise", async () => {
    const uncaught: unknown[] = [];
    const before = process.listeners("uncaughtException");
    process.removeAllListeners("uncaughtException");
    process.once("uncaughtException", (error) => uncaught.push(error));
    const manager = new JobManager({ env: manualEnv() });
    manager.events.once("status", () => {
      throw new Error("listener");
    });
    const { job } = scripted(manager, "x");
    await settle();
    for (const listener of before) process.on("uncaughtException", listener);
    expect([uncaught.map(String), job.status]).toEqual([["Error: listener"], "created"]);
  });

  it("cancels all, whatever they are doing, and dismisses them", async () => {
    const { manager } = bench();
    const options = { autoFinalize: false, autoDismiss: false };
    const jobs = await Promise.all(
      Object.values(IN_STATE).map(async (prepare, index) => {
        const made = scripted(manager, `j${index}`, options, new MirrorLikeDriver());
        await prepare(made.job, made.driver);
        return made;
      }),
    );
    await manager.cancelAll();
    expect(jobs.map(({ job }) => job.status)).toEqual(jobs.map(() => "null"));
    expect(jobs.map(({ driver }) => driver.calls.filter((call) => call === "free").length)).toEqual(
      jobs.map(() => 1),
    );
  });
});
