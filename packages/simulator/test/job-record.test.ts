import { runSeed } from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";
import { GroupRecord, JobRecord, type JobTraits } from "../src/worlds/job-record.ts";

const TRAITS: JobTraits = { id: "j", kind: "block", autoFinalize: true, autoDismiss: true };

/** Tells a record a story, and returns the kind of what it finds, or nothing. */
async function find(
  tell: (job: JobRecord, sibling: JobRecord) => void,
  traits: Partial<JobTraits> = {},
): Promise<string | undefined> {
  const { failure } = await runSeed(
    {
      name: "story",
      situations: [],
      run: async (simulation) => {
        const group = new GroupRecord();
        const job = new JobRecord(simulation, { ...TRAITS, ...traits }, group);
        const sibling = new JobRecord(simulation, { ...TRAITS, id: "sibling" }, group);
        tell(job, sibling);
        await simulation.scheduler.turn("the end");
      },
    },
    [],
  );
  return failure?.kind;
}

function status(job: JobRecord, list: string): void {
  for (const one of list.split(" ")) job.told("status", one);
}

/** Both have done their work, and wait for the end. */
function bothPending(job: JobRecord, sibling: JobRecord): void {
  for (const one of [job, sibling]) status(one, "created running waiting");
  for (const one of [job, sibling]) status(one, "pending");
}

describe("the record of a job", () => {
  it("finds nothing in a good life", async () => {
    const kind = await find((job, sibling) => {
      const both = [job, sibling];
      bothPending(job, sibling);
      for (const one of both) one.called("prepare");
      for (const one of both) one.called("commit");
      for (const one of both) {
        one.called("clean");
        one.called("completion");
        one.told("completed");
        status(one, "concluded null");
        one.called("free");
        one.outcome(undefined);
        one.atTheEnd();
      }
    });
    expect(kind).toBeUndefined();
  });

  it.each<[kind: string, tell: (job: JobRecord, sibling: JobRecord) => void]>([
    ["JB-1 no such edge", (job) => status(job, "created running standby")],
    ["JB-1 no such edge", (job) => status(job, "created running waiting concluded")],
    ["JB-4 told after the end", (job) => status(job, "created null created")],
    ["JB-4 wrong event", (job) => status(job, "created running ready standby")],
    [
      "JB-4 unexpected event",
      (job) => {
        status(job, "created running");
        job.told("ready");
      },
    ],
    [
      "JB-4 wrong ending",
      (job) => {
        status(job, "created running");
        job.told("cancelled");
      },
    ],
    [
      "JB-4 wrong ending",
      (job) => {
        status(job, "created running");
        job.cancelled(true);
        job.told("completed");
      },
    ],
    [
      "JB-3 pending too early",
      (job, sibling) => {
        status(sibling, "created running");
        status(job, "created running waiting pending");
      },
    ],
    [
      "JB-3 prepare of a group that fails",
      (job, sibling) => {
        bothPending(job, sibling);
        sibling.cancelled(true);
        job.called("prepare");
      },
    ],
    [
      "JB-3 commit of a group that fails",
      (job, sibling) => {
        bothPending(job, sibling);
        sibling.ownError = "EIO";
        job.called("commit");
      },
    ],
    ["JB-3 abort without a cause", (job) => job.called("abort")],
    ["JB-3 neither or both", (job) => job.called("clean")],
    [
      "JB-2 called twice",
      (job, sibling) => {
        bothPending(job, sibling);
        job.called("commit");
        job.called("commit");
      },
    ],
    [
      "JB-2 not ended well",
      (job, sibling) => {
        bothPending(job, sibling);
        job.told("completed");
        status(job, "concluded");
      },
    ],
    [
      "JB-5 a step while at rest",
      (job) => {
        status(job, "created running paused");
        job.beginStep();
      },
    ],
    [
      "JB-5 a step while drained",
      (job) => {
        status(job, "created running");
        job.drained(1);
        job.beginStep();
      },
    ],
    [
      "JB-5 a step in a drained section",
      (job) => {
        status(job, "created running");
        job.beginStep();
        job.drained(1);
      },
    ],
    [
      "JB-5 steps while paused",
      (job) => {
        status(job, "created running");
        job.paused(true);
        job.beginStep();
        job.endStep();
        job.beginStep();
      },
    ],
    ["JB-3 wrong outcome", (job) => job.outcome("EIO")],
    ["JB-2 not gone", (job) => job.atTheEnd()],
  ])("finds: %s", async (kind, tell) => {
    expect(await find(tell)).toBe(kind);
  });

  it.each([
    { traits: { autoFinalize: false }, kind: "JB-3 finalized by nobody" },
    { traits: { autoFinalize: false, kind: "plain" as const }, kind: "JB-3 finalized by nobody" },
    { traits: {}, kind: undefined },
  ])("knows who asks for the end: $kind", async ({ traits, kind }) => {
    const found = await find((job, sibling) => {
      bothPending(sibling, job);
      if (job.traits.kind === "block" && !job.traits.autoFinalize) job.told("pending");
      sibling.called("prepare");
    }, traits);
    expect(found).toBe(kind);
  });

  it("forgives one step to who just went on, when its user pauses it again", async () => {
    const kind = await find((job) => {
      status(job, "created running paused running");
      job.paused(true);
      job.beginStep();
    });
    expect(kind).toBeUndefined();
  });
});
