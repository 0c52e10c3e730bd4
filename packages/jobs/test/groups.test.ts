import { BlockError } from "@blocklayer/errors";
import { type Job, JobStartStep, runTransaction } from "@blocklayer/jobs";
import { describe, expect, it } from "vitest";
import { type Bench, bench, type ScriptedDriver, scripted, settle } from "./scripted-driver.ts";

const EIO = new BlockError("EIO", "Input/output error");
const words = (text: string): string[] => text.split(", ");

function pair(stage: Bench, options = {}) {
  const transaction = stage.manager.transaction();
  const a = scripted(stage.manager, "a", { ...options, transaction });
  const b = scripted(stage.manager, "b", { ...options, transaction });
  return { a, b, transaction };
}

async function act({ job, driver }: ReturnType<typeof scripted>, what: string): Promise<void> {
  if (what === "ok") driver.finish();
  if (what === "fail") driver.finish(EIO);
  // Its sibling may have taken it along already.
  if (what === "cancel" && !["aborting", "null"].includes(job.status)) job.cancel();
  await settle();
}

const codeOf = async (job: Job): Promise<string> => (await job.completed())?.code ?? "0";

describe("a single job", () => {
  it.each([
    { end: "success", code: "0" },
    { end: "failure", code: "EIO" },
    { end: "soft cancel", code: "ECANCELED" },
  ])("that ends by $end ends $code", async ({ end, code }) => {
    const { manager } = bench();
    const { job, driver } = scripted(manager, "a");
    job.start();
    await settle();
    if (end === "soft cancel") job.cancel();
    else driver.finish(end === "failure" ? EIO : undefined);
    expect(await codeOf(job)).toBe(code);
  });
});

describe("a pair", () => {
  it.each([
    { first: "ok", second: "ok", codes: ["0", "0"] },
    { first: "fail", second: "ok", codes: ["EIO", "ECANCELED"] },
    { first: "ok", second: "fail", codes: ["ECANCELED", "EIO"] },
    { first: "cancel", second: "ok", codes: ["ECANCELED", "ECANCELED"] },
    { first: "ok", second: "cancel", codes: ["ECANCELED", "ECANCELED"] },
    { first: "fail", second: "nothing", codes: ["EIO", "ECANCELED"] },
    { first: "nothing", second: "cancel", codes: ["ECANCELED", "ECANCELED"] },
  ])("of $first and $second ends $codes, in either order", async ({ first, second, codes }) => {
    for (const reverse of [false, true]) {
      const stage = bench();
      const { a, b } = pair(stage);
      a.job.start();
      b.job.start();
      await settle();
      await (reverse ? act(b, second) : act(a, first));
      await (reverse ? act(a, first) : act(b, second));
      expect([await codeOf(a.job), await codeOf(b.job)]).toEqual(codes);
      const outcome = codes[0] === "0" ? "commit" : "abort";
      for (const { driver } of [a, b]) {
        expect(driver.calls).toEqual(["run", outcome, "clean", "free"]);
      }
      expect(stage.defects).toEqual([]);
    }
  });

  it("that both fail keep their own errors; only the second was cancelled", async () => {
    const stage = bench();
    const { a, b } = pair(stage);
    const io = Promise.withResolvers<void>();
    b.driver.run = () => io.promise;
    a.job.start();
    b.job.start();
    a.driver.finish(EIO);
    await settle();
    io.reject(new BlockError("ENOSPC", "full"));
    expect([await codeOf(a.job), await codeOf(b.job)]).toEqual(["EIO", "ENOSPC"]);
    expect(stage.events.filter((event) => event.includes(" "))).toEqual([
      "b CANCELLED",
      "a COMPLETED (Input/output error)",
    ]);
  });

  it("with a cancelled job whose kick is still pending while the other runs to its end", async () => {
    const stage = bench();
    const wakes: (() => void)[] = [];
    stage.env.wake = (resume) => void wakes.push(resume);
    const release = async (): Promise<void> => {
      for (const wake of wakes.splice(0)) wake();
      await settle();
    };
    const outcomes: string[] = [];
    const transaction = stage.manager.transaction();
    const make = (id: string) =>
      scripted(stage.manager, id, {
        transaction,
        completion: (error) => outcomes.push(`${id} ${error?.code}`),
      });
    const one = make("one");
    const two = make("two");
    one.job.start();
    two.job.start();
    await release();
    one.job.cancel();
    const [held] = wakes.splice(0, 1);
    two.driver.finish();
    await release();
    await release();
    await release();
    held?.();
    for (let turn = 0; turn < 10; turn += 1) await release();
    expect(outcomes).toEqual(["two ECANCELED", "one ECANCELED"]);
  });

  it("becomes pending together, newest first, each telling that it waits to be finalized", async () => {
    const { a, b, transaction } = pair(bench(), { autoFinalize: false });
    expect(transaction.jobs).toEqual([b.job, a.job]);
    const stage = bench();
    const manual = pair(stage, { autoFinalize: false });
    manual.a.job.start();
    manual.b.job.start();
    manual.a.driver.finish();
    await settle();
    expect(manual.a.job.status).toBe("waiting");
    manual.b.driver.finish();
    await settle();
    expect(stage.events.splice(0).slice(4)).toEqual(
      words("a:waiting, b:waiting, b:pending, b PENDING, a:pending, a PENDING"),
    );
    await manual.a.job.finalize();
    expect(stage.events).toEqual(
      words("b COMPLETED, b:concluded, b:null, a COMPLETED, a:concluded, a:null"),
    );
    expect(manual.transaction.jobs).toEqual([]);
  });

  it("waits for one finalize if one member wants it", async () => {
    const stage = bench();
    const transaction = stage.manager.transaction();
    const a = scripted(stage.manager, "a", { transaction, autoFinalize: false });
    const b = scripted(stage.manager, "b", { transaction });
    a.job.start();
    b.job.start();
    a.driver.finish();
    b.driver.finish();
    await settle();
    expect(stage.events.slice(-3)).toEqual(words("b:pending, a:pending, a PENDING"));
    const both = [b.job.finalize(), a.job.finalize()];
    await Promise.all(both);
    expect([a.job.status, b.job.status]).toEqual(["null", "null"]);
    expect(a.driver.calls).toEqual(["run", "commit", "clean", "free"]);
  });

  it("aborts as a whole when a waiting member is cancelled", async () => {
    const stage = bench();
    const { a, b } = pair(stage);
    a.job.start();
    b.job.start();
    b.driver.finish();
    await settle();
    stage.events.length = 0;
    b.job.cancel({ force: true });
    await settle();
    expect(stage.events.filter((event) => event.startsWith("b"))).toEqual(
      words("b:aborting, b CANCELLED, b:concluded, b:null"),
    );
    expect(stage.events.filter((event) => event.startsWith("a"))).toEqual(
      words("a:aborting, a CANCELLED, a:concluded, a:null"),
    );
    expect(a.job.transaction.isAborting).toBe(true);
  });

  it("prepares newest first and commits all at one instant", async () => {
    const stage = bench();
    const order: string[] = [];
    const transaction = stage.manager.transaction();
    for (const id of ["a", "b"]) {
      const { job, driver } = scripted(stage.manager, id, { transaction });
      Object.assign(driver, {
        prepare: async () => {
          await settle();
          order.push(`prepare ${id}`);
        },
        commit: () => order.push(`commit ${id}`),
        clean: async () => {
          await settle();
          order.push(`clean ${id}`);
        },
      });
      job.start();
      driver.finish();
    }
    await Promise.all(stage.manager.list().map((job) => job.completed()));
    expect(order).toEqual(words("prepare b, prepare a, commit b, commit a, clean b, clean a"));
  });

  it("aborts and cleans all when one can not be prepared, and prepares no other", async () => {
    const stage = bench();
    const { a, b } = pair(stage);
    Object.assign(b.driver, { prepare: () => Promise.reject(EIO) });
    Object.assign(a.driver, { prepare: () => a.driver.calls.push("prepare") });
    a.job.start();
    b.job.start();
    a.driver.finish();
    b.driver.finish();
    expect([await codeOf(a.job), await codeOf(b.job)]).toEqual(["ECANCELED", "EIO"]);
    for (const { driver } of [a, b]) {
      expect(driver.calls).toEqual(["run", "abort", "clean", "free"]);
    }
  });

  it("that is committing can not be cancelled, not even by one of the commits", async () => {
    const stage = bench();
    const { a, b } = pair(stage);
    b.driver.commit = () => a.job.cancel({ force: true });
    a.job.start();
    b.job.start();
    a.driver.finish();
    b.driver.finish();
    expect([await codeOf(a.job), await codeOf(b.job)]).toEqual(["0", "0"]);
    expect(stage.events.filter((event) => event.includes(" "))).toEqual([
      "b COMPLETED",
      "a COMPLETED",
    ]);
    expect([a.driver.calls, stage.defects]).toEqual([["run", "commit", "clean", "free"], []]);
  });

  it("that has ended takes no more jobs", async () => {
    const stage = bench();
    const { a, b, transaction } = pair(stage);
    a.job.start();
    b.job.start();
    a.driver.finish();
    b.driver.finish();
    await settle();
    expect(() => scripted(stage.manager, "c", { transaction })).toThrow(
      "a job can not join a transaction that is ending or has ended",
    );
  });
});

describe("a transaction that was cancelled before it was complete", () => {
  it("takes no more jobs", async () => {
    const stage = bench();
    const transaction = stage.manager.transaction();
    const { job } = scripted(stage.manager, "a", { transaction });
    job.cancel();
    const late = (): unknown => scripted(stage.manager, "c", { transaction });
    expect(late).toThrow("a job of the same transaction has failed or was cancelled");
    expect(late).toThrow(expect.objectContaining({ code: "ECANCELED", context: { job: "c" } }));
    await settle();
    expect([stage.manager.list(), stage.defects]).toEqual([[], []]);
  });
});

describe("jobs started by a transaction command", () => {
  const start = (stage: Bench, ids: readonly string[], grouped: boolean) => {
    const transaction = grouped ? { transaction: stage.manager.transaction() } : {};
    const made: ScriptedDriver[] = [];
    const steps = ids.map(
      (id) =>
        new JobStartStep(() => {
          const { job, driver } = scripted(stage.manager, id, transaction);
          made.push(driver);
          return job;
        }),
    );
    return { made, steps, done: runTransaction(steps) };
  };

  it("are all made before any starts", async () => {
    const stage = bench();
    const { steps, done } = start(stage, ["a", "b"], true);
    await done;
    expect(stage.events).toEqual(words("a:created, b:created, a:running, b:running"));
    expect(steps.map((step) => step.job?.id)).toEqual(["a", "b"]);
    await stage.manager.cancelAll();
  });

  it("and cancelled before all are made are not started, and that is no failure", async () => {
    const stage = bench();
    const cancelFirst = {
      prepare: () => stage.manager.get("a").cancel({ force: true }),
    };
    const first = new JobStartStep(() => scripted(stage.manager, "a").job);
    const second = new JobStartStep(() => scripted(stage.manager, "b").job);
    await runTransaction([first, cancelFirst, second]);
    await settle();
    expect([first.job?.status, second.job?.status]).toEqual(["null", "running"]);
    await stage.manager.cancelAll();
  });

  it.each([true, false])("are gone if one can not be made (grouped: %s)", async (grouped) => {
    const stage = bench();
    const { made, done } = start(stage, ["a", "b", "a"], grouped);
    await expect(done).rejects.toMatchObject({ message: "Job ID 'a' already in use" });
    expect(stage.manager.list()).toEqual([]);
    for (const id of ["a", "b"]) {
      expect(stage.events.filter((event) => event.startsWith(id))).toEqual(
        ["created", "aborting", "concluded", "null"].map((status) => `${id}:${status}`),
      );
    }
    expect(made.map((driver) => driver.calls)).toEqual(made.map(() => ["abort", "clean", "free"]));
  });

  it.each([
    { grouped: false, codes: ["0", "EIO"] },
    { grouped: true, codes: ["ECANCELED", "EIO"] },
  ])(
    "end $codes when the second fails and the first had nothing to do (grouped: $grouped)",
    async ({ grouped, codes }) => {
      const stage = bench();
      const { made, steps, done } = start(stage, ["a", "b"], grouped);
      await done;
      made[0]?.finish();
      await settle();
      made[1]?.finish(EIO);
      const jobs = steps.map((step) => step.job).filter((job) => job !== undefined);
      expect(await Promise.all(jobs.map(codeOf))).toEqual(codes);
    },
  );
});
