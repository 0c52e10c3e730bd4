import { actionFor, type OnError } from "@blocklayer/block-job";
import { BlockError } from "@blocklayer/errors";
import { describe, expect, it } from "vitest";
import { CHUNK, CopyDriver, failure, IdleDriver, Rig, SIZE } from "./job-rig.ts";

const POLICIES: readonly OnError[] = ["report", "ignore", "enospc", "auto", "stop"];
const TABLE: Record<OnError, readonly [enospc: string, other: string]> = {
  report: ["report", "report"],
  ignore: ["ignore", "ignore"],
  enospc: ["stop", "report"],
  auto: ["stop", "report"],
  stop: ["stop", "stop"],
};
const ROWS = POLICIES.flatMap((policy) =>
  (["ENOSPC", "EIO", "EPERM"] as const).flatMap((code) =>
    [true, false].map((isRead) => ({
      policy,
      code,
      isRead,
      action: TABLE[policy][code === "ENOSPC" ? 0 : 1],
    })),
  ),
);

describe("an I/O error", () => {
  it.each(ROWS)(
    "$code with policy $policy (read: $isRead) is answered with $action",
    async (row) => {
      const { policy, code, isRead, action } = row;
      const rig = new Rig();
      const blockJob = await rig.create();
      blockJob.job.start();
      await rig.settle();
      rig.events.length = 0;
      const error = new BlockError(code, "broken");
      expect(actionFor(policy, error)).toBe(action);
      expect(blockJob.errorAction(policy, error, isRead)).toBe(action);
      await rig.settle();
      const isStopped = action === "stop";
      expect(rig.events).toEqual([
        `ERROR ${isRead ? "read" : "write"} ${action}`,
        ...(isStopped ? ["S:paused"] : []),
      ]);
      const status = code === "ENOSPC" ? "nospace" : "failed";
      expect(blockJob.ioStatus).toBe(isStopped ? status : "ok");
      expect(blockJob.query()).toMatchObject({
        ioStatus: isStopped ? status : "ok",
        paused: isStopped,
        status: isStopped ? "paused" : "running",
      });
      expect(blockJob.job.userPaused).toBe(isStopped);
    },
  );

  it("that comes second changes neither the status nor the count of pauses", async () => {
    const rig = new Rig();
    const blockJob = await rig.create();
    blockJob.job.start();
    blockJob.errorAction("stop", new BlockError("EIO", "first"), true);
    blockJob.errorAction("stop", new BlockError("ENOSPC", "second"), false);
    expect(blockJob.ioStatus).toBe("failed");
    expect(blockJob.job.pauseCount).toBe(1);
  });

  it.each(["resume", "cancel"])("is forgotten with the user's %s", async (verb) => {
    const rig = new Rig();
    const blockJob = await rig.create();
    const { job } = blockJob;
    job.start();
    blockJob.errorAction("stop", new BlockError("ENOSPC", "full"), false);
    await rig.settle();
    if (verb === "resume") job.resume();
    else job.cancel({ force: true });
    expect([blockJob.ioStatus, job.userPaused]).toEqual(["ok", false]);
    if (verb === "resume") {
      expect((await failure(() => job.resume())).message).toBe(
        "Can't resume a job that was not paused",
      );
    }
  });

  it("keeps its status while the user had paused the job before", async () => {
    const rig = new Rig();
    const blockJob = await rig.create();
    blockJob.job.start();
    blockJob.job.pause();
    blockJob.errorAction("stop", new BlockError("EIO", "broken"), true);
    expect([blockJob.ioStatus, blockJob.job.pauseCount]).toEqual(["failed", 1]);
    blockJob.job.resume();
    expect([blockJob.ioStatus, blockJob.job.pauseCount]).toEqual(["ok", 0]);
  });
});

describe("a copy whose disk fails once", () => {
  it.each<{
    side: "source" | "target";
    code: string;
    policy: OnError;
    events: string[];
    copied: number;
  }>([
    {
      side: "source",
      code: "EIO",
      policy: "report",
      events: ["ERROR read report", "S:aborting", "COMPLETED"],
      copied: 2 * CHUNK,
    },
    {
      side: "target",
      code: "EIO",
      policy: "enospc",
      events: ["ERROR write report", "S:aborting", "COMPLETED"],
      copied: 2 * CHUNK,
    },
    {
      side: "target",
      code: "ENOSPC",
      policy: "ignore",
      events: ["ERROR write ignore", "S:waiting", "S:pending", "COMPLETED"],
      copied: SIZE,
    },
    {
      side: "target",
      code: "ENOSPC",
      policy: "enospc",
      events: ["ERROR write stop", "S:paused", "S:running", "S:waiting", "S:pending", "COMPLETED"],
      copied: SIZE,
    },
    {
      side: "source",
      code: "EIO",
      policy: "stop",
      events: ["ERROR read stop", "S:paused", "S:running", "S:waiting", "S:pending", "COMPLETED"],
      copied: SIZE,
    },
  ])("with $code at the $side and policy $policy tells $events", async (row) => {
    const rig = new Rig();
    const source = await rig.scriptedDisk("source");
    const target = await rig.scriptedDisk("target");
    const operation = row.side === "source" ? "pread" : "pwrite";
    rig.scripted.instance(row.side).failNth(operation, 3, row.code);
    const driver = new CopyDriver(row.policy);
    const blockJob = await rig.copy(source, target, { driver });
    blockJob.job.start();
    for (let turn = 0; turn < 20; turn += 1) await rig.tick();
    if (blockJob.job.userPaused) {
      expect(blockJob.ioStatus).toBe(row.code === "ENOSPC" ? "nospace" : "failed");
      expect(driver.copied).toBe(2 * CHUNK);
      blockJob.job.resume();
      for (let turn = 0; turn < 20; turn += 1) await rig.tick();
    }
    const told = rig.events.map((event) => event.replace(/^COMPLETED .*/, "COMPLETED"));
    expect(told).toEqual(["S:created", "S:running", ...row.events, "S:concluded", "S:null"]);
    expect(driver.copied).toBe(row.copied);
    expect([source.parents.size, target.parents.size]).toEqual([0, 0]);
    expect(blockJob.ioStatus).toBe("ok");
  });
});

describe("a job that fails", () => {
  it("ends with its own error", async () => {
    const rig = new Rig();
    const driver = new IdleDriver();
    const { job } = await rig.create({ driver });
    job.start();
    await rig.settle();
    driver.finish(new BlockError("ENOSPC", ""));
    expect(await job.completed()).toMatchObject({ message: "No space left on device" });
    expect(rig.events.slice(-3)).toEqual([
      "COMPLETED No space left on device",
      "S:concluded",
      "S:null",
    ]);
  });
});
